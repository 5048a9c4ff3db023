package tables

import (
	"strconv"

	"agflow/core/criteria"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// ScoresToRecord has one row a unit: layer, group utf8; unit, unit_width, parts int32; unit_macs,
// unit_params int64; score float64. Metadata: agflow.criterion, agflow.seed.
func ScoresToRecord(alloc memory.Allocator, s criteria.Scores) arrow.Record {
	c := columns{alloc: alloc}
	defer c.release()
	c.units(s.Layers)
	c.float64s("score", s.Score)
	pairs := copied(s.Metadata)
	putModel(pairs, s.Model)
	putChannelGroups(pairs, s.Layers)
	pairs[keyCriterion] = s.Criterion
	pairs[keySeed] = strconv.FormatUint(s.Seed, 10)
	return c.record(KindScores, pairs)
}

// ScoresFromRecord copies the scores out of a record batch.
func ScoresFromRecord(rec arrow.Record) (criteria.Scores, error) {
	x := extract(rec, KindScores)
	defer x.release()
	s := criteria.Scores{
		Model:     x.model(),
		Layers:    x.units(),
		Criterion: x.pairs[keyCriterion],
		Seed:      x.seed(),
		Score:     x.float64s("score"),
		Metadata:  tableMetadata(x.pairs, keyCriterion, keySeed),
	}
	if x.err != nil {
		return criteria.Scores{}, x.err
	}
	return s, nil
}

func (x *extractor) seed() uint64 {
	if x.err != nil {
		return 0
	}
	seed, err := strconv.ParseUint(x.pairs[keySeed], 10, 64)
	if err != nil {
		x.err = fault.New(fault.Value,
			"metadata %s is %q, expected a whole number from 0; make the table with agflow",
			keySeed, x.pairs[keySeed])
	}
	return seed
}
