package routing

import (
	"math"
	"slices"

	"agflow/core/fault"
)

// Outcomes are what both experts made of the same held-out samples; Prior is the light expert's.
type Outcomes struct {
	Prior                      []float32
	LightCorrect, HeavyCorrect []bool
}

func (o Outcomes) validate() error {
	if len(o.Prior) != len(o.LightCorrect) || len(o.Prior) != len(o.HeavyCorrect) {
		return fault.New(fault.Shape, "%d priors, %d light and %d heavy outcomes were given; give one of each a sample",
			len(o.Prior), len(o.LightCorrect), len(o.HeavyCorrect))
	}
	if len(o.Prior) == 0 {
		return fault.New(fault.Empty, "no samples were given; predict on held-out data first")
	}
	for i, p := range o.Prior {
		if p-p != 0 {
			return fault.New(fault.Nonfinite, "the prior of sample %d is %v; priors are probabilities from 0 to 1", i, p)
		}
		if p < 0 || p > 1 {
			return fault.New(fault.Value, "the prior of sample %d is %v; priors are probabilities from 0 to 1", i, p)
		}
	}
	return nil
}

// packed is one sample in 32 bits: the prior's bits (below 2^30 for probabilities) over two correctness bits. Packed
// samples sort by prior.
type packed uint32

func (s packed) prior() float32 { return math.Float32frombits(uint32(s) >> 2) }
func (s packed) light() int64   { return int64(s >> 1 & 1) }
func (s packed) heavy() int64   { return int64(s & 1) }

// sorted returns the samples by ascending prior.
func (o Outcomes) sorted() []packed {
	samples := make([]packed, len(o.Prior))
	for i, p := range o.Prior {
		samples[i] = packed(math.Float32bits(p) << 2) // the shift drops the sign of -0
		if o.LightCorrect[i] {
			samples[i] |= 2
		}
		if o.HeavyCorrect[i] {
			samples[i] |= 1
		}
	}
	slices.Sort(samples)
	return samples
}
