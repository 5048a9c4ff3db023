// Package criteria computes one score a unit from a table of statistics; the planner keeps the
// units of the highest scores.
//
// A criterion reads the table alone, so equal tables give equal scores in every interface. It must
// not select or prune, and keeps no state. A new criterion is a file of its own and an entry in the
// registry.
package criteria

import (
	"maps"
	"math"
	"slices"
	"strings"

	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/words"
)

// Scores has one score a unit, in the order of the table that it was made from.
type Scores struct {
	Model     statistics.Model
	Layers    []statistics.Layer
	Criterion string
	Seed      uint64 // only random reads it
	Score     []float64
	Metadata  map[string]string // the table's
}

// Validate checks what every reader of scores relies on: valid layers and one finite score a unit.
//
// Errors: those of [statistics.ValidateLayers], shape, nonfinite.
func (s Scores) Validate() error {
	if err := statistics.ValidateLayers(s.Layers); err != nil {
		return err
	}
	if units := statistics.Units(s.Layers); len(s.Score) != units {
		return fault.New(fault.Shape, "%d scores were given for %d units; give one score a unit",
			len(s.Score), units)
	}
	for i, v := range s.Score {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fault.New(fault.Nonfinite,
				"the %s score is %v at %s; scores must be finite, "+
					"so check the statistics they were made from",
				s.Criterion, v, statistics.UnitName(s.Layers, i))
		}
	}
	return nil
}

// Description describes a criterion to users.
type Description struct {
	Name       string `json:"name"`
	Doc        string `json:"doc"`
	Comparable bool   `json:"comparable"` // its scores may be ranked across layers
	// it needs a calibration that records weight gradients
	WeightGradients bool `json:"weight_gradients"`
}

// criterion is a description and the function that writes the scores of the units of layer l, whose
// entries of t begin at offset. Score has checked that every unit has seen rows and that all that
// the criterion needs is recorded.
type criterion struct {
	Description
	needs *record // nil when the activations and gradients are enough
	score func(score []float64, l statistics.Layer, offset int, t statistics.Table, seed uint64)
}

// registry has all criteria, in the order in which users see them.
var registry = []criterion{
	agf, agfRelative, taylor, taylorWeight, fisher, activation, wanda, ria,
	variance, varianceWeighted, magnitude, magnitudeL1, random,
}

// Names returns the names of all criteria.
func Names() []string {
	names := make([]string, len(registry))
	for i, c := range registry {
		names[i] = c.Name
	}
	return names
}

// Describe returns the description of a criterion; an unknown name is an error of code value that
// lists the known ones.
func Describe(name string) (Description, error) {
	c, err := find(name)
	c.WeightGradients = c.needs == &weightGradients
	return c.Description, err
}

// Score returns the scores of all units of a table by one criterion. Only random reads the seed.
//
// Errors: value (unknown name), empty (a layer without rows), layer (what the criterion needs was
// not recorded), and those of [statistics.Table.Validate].
func Score(name string, seed uint64, t statistics.Table) (Scores, error) {
	c, err := find(name)
	if err != nil {
		return Scores{}, err
	}
	if err := t.Validate(); err != nil {
		return Scores{}, err
	}
	scores := Scores{
		Model: t.Model, Layers: slices.Clone(t.Layers), Criterion: name, Seed: seed,
		Score: make([]float64, statistics.Units(t.Layers)), Metadata: maps.Clone(t.Metadata),
	}
	offsets := statistics.Offsets(t.Layers)
	for i, l := range t.Layers {
		lo, hi := offsets[i], offsets[i+1]
		if unit := slices.Index(t.Rows[lo:hi], 0); unit >= 0 {
			return Scores{}, fault.New(fault.Empty,
				"unit %d of layer %q has seen no rows: no gradient came through it in any batch; "+
					"calibrate with batches and a loss that reach it, and without torch.no_grad "+
					"or activation checkpointing in the model's forward pass",
				unit, l.Name)
		}
		if err := c.check(l, lo, t); err != nil {
			return Scores{}, err
		}
		c.score(scores.Score[lo:hi], l, lo, t, seed)
	}
	return scores, scores.Validate()
}

func find(name string) (criterion, error) {
	for _, c := range registry {
		if c.Name == name {
			return c, nil
		}
	}
	return criterion{}, fault.New(fault.Value, "there is no criterion %q; the criteria are %s%s",
		name, strings.Join(Names(), ", "), words.DidYouMean(name, Names()))
}
