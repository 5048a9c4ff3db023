package masking

import (
	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

// Plan says which units stay. Score and Keep have one entry a unit, in the order of the scores it was made from.
type Plan struct {
	Model     statistics.Model
	Layers    []statistics.Layer
	Criterion string
	Seed      uint64
	Score     []float64
	Keep      []bool
	Request   Request
	Metadata  map[string]string // the scores'
}

// Validate checks what every reader of a plan relies on: sound layers, one finite score and one decision a unit, and at
// least one unit kept in each layer.
//
// Errors: those of [criteria.Scores.Validate], shape, value (a layer that keeps nothing).
func (p Plan) Validate() error {
	scores := criteria.Scores{Layers: p.Layers, Criterion: p.Criterion, Score: p.Score}
	if err := scores.Validate(); err != nil {
		return err
	}
	if len(p.Keep) != len(p.Score) {
		return fault.New(fault.Shape, "the plan has %d decisions for %d units; give one a unit", len(p.Keep), len(p.Score))
	}
	for i, kept := range p.kept() {
		if kept == 0 {
			return fault.New(fault.Value, "the plan keeps no unit of layer %q; keep at least one", p.Layers[i].Name)
		}
	}
	return nil
}

// kept counts the units kept in each layer.
func (p Plan) kept() []int {
	kept := make([]int, len(p.Layers))
	offsets := statistics.Offsets(p.Layers)
	for i := range p.Layers {
		for _, keep := range p.Keep[offsets[i]:offsets[i+1]] {
			if keep {
				kept[i]++
			}
		}
	}
	return kept
}

// macs returns the MACs of the pruned model for one image.
func (p Plan) macs() int64 {
	macs := p.Model.MACs
	for i, kept := range p.kept() {
		macs -= int64(p.Layers[i].Units-kept) * p.Layers[i].UnitMACs
	}
	return macs
}
