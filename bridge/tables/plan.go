package tables

import (
	"encoding/json"
	"strconv"

	"agflow/core/fault"
	"agflow/core/planning"
	"agflow/core/strictjson"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// PlanToRecord has one row a unit: layer, group utf8; unit, unit_width, parts int32; unit_macs,
// unit_params int64; score float64; keep bool. Metadata: agflow.criterion, agflow.seed,
// agflow.request and agflow.planned (JSON of planning.Request and of planning.Price).
func PlanToRecord(alloc memory.Allocator, p planning.Plan) (arrow.Record, error) {
	request, err := json.Marshal(p.Request)
	if err != nil {
		return nil, fault.New(fault.Value, "the plan's request can't be written as JSON: %w", err)
	}
	planned, err := json.Marshal(p.Planned)
	if err != nil {
		return nil, fault.New(fault.Value, "what the plan comes to can't be written as JSON: %w",
			err)
	}
	c := columns{alloc: alloc}
	defer c.release()
	c.units(p.Layers)
	c.float64s("score", p.Score)
	c.bools("keep", p.Keep)
	pairs := copied(p.Metadata)
	putModel(pairs, p.Model)
	putChannelGroups(pairs, p.Layers)
	pairs[keyCriterion] = p.Criterion
	pairs[keySeed] = strconv.FormatUint(p.Seed, 10)
	pairs[keyRequest] = string(request)
	pairs[keyPlanned] = string(planned)
	return c.record(KindPlan, pairs), nil
}

// PlanFromRecord copies the plan out of a record batch. What it comes to is worked out from the
// units that it keeps, which may have been edited.
func PlanFromRecord(rec arrow.Record) (planning.Plan, error) {
	x := extract(rec, KindPlan)
	defer x.release()
	p := planning.Plan{
		Model:     x.model(),
		Layers:    x.units(),
		Criterion: x.pairs[keyCriterion],
		Seed:      x.seed(),
		Score:     x.float64s("score"),
		Keep:      x.bools("keep"),
		Metadata:  tableMetadata(x.pairs, keyCriterion, keySeed, keyRequest, keyPlanned),
	}
	if x.err != nil {
		return planning.Plan{}, x.err
	}
	if err := strictjson.Whole([]byte(x.pairs[keyRequest]), &p.Request); err != nil {
		return planning.Plan{}, fault.New(fault.Value,
			"metadata %s is not the JSON of a request: %w; make the plan with agflow",
			keyRequest, err)
	}
	if err := strictjson.Over([]byte(x.pairs[keyPlanned]), &p.Planned); err != nil {
		return planning.Plan{}, fault.New(fault.Value,
			"metadata %s is not the JSON of what a plan comes to: %w; make the plan with agflow",
			keyPlanned, err)
	}
	if err := p.Request.Validate(); err != nil {
		return planning.Plan{}, err
	}
	if err := p.Validate(); err != nil {
		return planning.Plan{}, err
	}
	return p.Priced()
}
