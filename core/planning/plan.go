package planning

import (
	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

// Plan has the units that are kept. Score and Keep have one entry a unit, in the order of the
// scores it was made from.
type Plan struct {
	Model     statistics.Model
	Layers    []statistics.Layer
	Criterion string
	Seed      uint64
	Score     []float64
	Keep      []bool
	Request   Request
	Planned   Price             // of the pruned model
	Metadata  map[string]string // the scores'
}

// Validate checks what every reader of a plan relies on: valid layers, one finite score and one
// decision a unit, at least one unit kept in each layer that may not vanish, and equally many in
// each part of a layer.
//
// Errors: those of [criteria.Scores.Validate], shape, value (a layer that keeps nothing, or parts
// that differ).
func (p Plan) Validate() error {
	scores := criteria.Scores{Layers: p.Layers, Criterion: p.Criterion, Score: p.Score}
	if err := scores.Validate(); err != nil {
		return err
	}
	if len(p.Keep) != len(p.Score) {
		return fault.New(fault.Shape, "the plan has %d decisions for %d units; give one a unit",
			len(p.Keep), len(p.Score))
	}
	offsets := statistics.Offsets(p.Layers)
	for i, l := range p.Layers {
		keep, size := p.Keep[offsets[i]:offsets[i+1]], l.Units/l.Parts
		first := count(keep[:size])
		if first == 0 && !l.MayVanish {
			return fault.New(fault.Value, "the plan keeps no unit of layer %q; keep at least one",
				l.Name)
		}
		for part := 1; part < l.Parts; part++ {
			if kept := count(keep[part*size : (part+1)*size]); kept != first {
				return fault.New(fault.Value,
					"the plan keeps %d units of part 0 of layer %q and %d of part %d; "+
						"keep as many of each",
					first, l.Name, kept, part)
			}
		}
	}
	return nil
}

// Priced returns the plan with the costs of the units that it keeps. A plan whose units were edited
// since it was made has new costs and no latency, which only the latency table knows.
//
// Errors: value (the costs in the metadata).
func (p Plan) Priced() (Plan, error) {
	prices, err := pricingOf(p.Model, p.Layers, p.Metadata, nil)
	if err != nil {
		return Plan{}, err
	}
	offsets, kept := statistics.Offsets(p.Layers), make([]int, len(p.Layers))
	for i := range p.Layers {
		kept[i] = count(p.Keep[offsets[i]:offsets[i+1]])
	}
	now := prices.of(kept)
	if now.MACs == p.Planned.MACs && now.Params == p.Planned.Params {
		return p, nil
	}
	p.Planned = now
	return p, nil
}

func count(keep []bool) int {
	kept := 0
	for _, k := range keep {
		if k {
			kept++
		}
	}
	return kept
}
