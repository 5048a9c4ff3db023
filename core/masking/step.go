package masking

import (
	"cmp"
	"math"
	"slices"

	"agflow/core/criteria"
	"agflow/core/statistics"
)

// ranked is a layer to prune with its units in the order in which they are kept.
type ranked struct {
	statistics.Layer
	offset int // of its first unit's score
	units  []rankedUnit
	worth  float64   // what turns a score into a multiple of the layer's mean
	width  []float64 // what keeping one unit more is worth when widths are shared out, falling: multiples of the layer's mean
}

type rankedUnit struct {
	score float64
	unit  int32
}

// rank sorts the units of the selected layers: best score first, ties by lower index. Widths are scores of the same units,
// or nil when each layer gives the same share.
func rank(s criteria.Scores, widths []float64, selected []bool) []ranked {
	var targets []ranked
	offsets := statistics.Offsets(s.Layers)
	for i, l := range s.Layers {
		if !selected[i] {
			continue
		}
		scores := s.Score[offsets[i]:offsets[i+1]]
		t := ranked{Layer: l, offset: offsets[i], units: make([]rankedUnit, l.Units), worth: worth(scores)}
		for u, score := range scores {
			t.units[u] = rankedUnit{score, int32(u)}
		}
		if widths != nil {
			t.width = widthCurve(widths[offsets[i]:offsets[i+1]])
		}
		slices.SortFunc(t.units, func(a, b rankedUnit) int {
			if a.score != b.score {
				return cmp.Compare(b.score, a.score)
			}
			return cmp.Compare(a.unit, b.unit)
		})
		targets = append(targets, t)
	}
	return targets
}

// worth is what turns the scores of a layer into multiples of their mean; 0 for a layer of zeros.
func worth(scores []float64) float64 {
	magnitude := 0.0
	for _, s := range scores {
		magnitude += math.Abs(s)
	}
	if magnitude == 0 {
		return 0
	}
	return float64(len(scores)) / magnitude
}

// widthCurve returns a layer's scores as multiples of their mean, greatest first. Scores of different layers have no
// common scale (raw AGF falls with depth, variance grows with it), their distribution inside a layer has: a layer whose
// worth lies in few units gives up more of them.
func widthCurve(scores []float64) []float64 {
	curve := slices.Clone(scores)
	slices.SortFunc(curve, func(a, b float64) int { return cmp.Compare(b, a) })
	unit := worth(scores)
	for i := range curve {
		curve[i] *= unit
	}
	return curve
}

// stepUnits returns how many units of a layer come and go together.
func stepUnits(l statistics.Layer, roundTo int) int {
	if l.Group == statistics.MLP {
		return roundTo
	}
	return 1
}

// step is the next stepUnits units of a layer. The first step of each layer is its floor and no candidate.
type step struct {
	target int32   // the layer, among the targets
	first  int32   // its first unit's place in the layer's ranking
	width  float64 // sum over its places in the layer's width curve
	share  float64 // the share of its pool that is kept once it is
	gain   float64 // worth per MAC
}

// order lists the steps above the floors in the order in which a growing budget takes them: by the share of the pool
// kept, so that all pools grow alike; among equal shares best worth per MAC first; then by lower index.
func order(targets []ranked, shared bool, roundTo int) []step {
	var steps []step
	for _, pool := range pools(targets, shared) {
		steps = append(steps, poolSteps(targets, pool, roundTo)...)
	}
	slices.SortFunc(steps, func(a, b step) int {
		switch {
		case a.share != b.share:
			return cmp.Compare(a.share, b.share)
		case a.gain != b.gain:
			return cmp.Compare(b.gain, a.gain)
		}
		return cmp.Compare(a.target, b.target)
	})
	return steps
}

// pools returns the targets of each pool: a layer, or, when widths are shared out, all layers of a group.
func pools(targets []ranked, shared bool) [][]int {
	var all [][]int
	places := map[string]int{}
	for i, t := range targets {
		place, known := places[t.Group]
		if shared && known {
			all[place] = append(all[place], i)
			continue
		}
		places[t.Group] = len(all)
		all = append(all, []int{i})
	}
	return all
}

// poolSteps lists the steps of a pool, greatest width first, each with the share of the pool kept once it is taken. All
// steps of a pool have the same number of units, so the sum ranks as the mean does.
func poolSteps(targets []ranked, pool []int, roundTo int) []step {
	var steps []step
	units, kept := 0, 0
	for _, i := range pool {
		t := targets[i]
		size := stepUnits(t.Layer, roundTo)
		units += t.Units
		kept += size // the floor
		for first := size; first+size <= t.Units; first += size {
			s := step{target: int32(i), first: int32(first), gain: math.Inf(1)} // free
			if t.UnitMACs > 0 {
				s.gain = scoreOf(t.units[first:first+size]) * t.worth / (float64(size) * float64(t.UnitMACs))
			}
			if t.width != nil {
				s.width = sum(t.width[first : first+size])
			}
			steps = append(steps, s)
		}
	}
	slices.SortFunc(steps, func(a, b step) int {
		switch {
		case a.width != b.width:
			return cmp.Compare(b.width, a.width)
		case a.target != b.target:
			return cmp.Compare(a.target, b.target)
		}
		return cmp.Compare(a.first, b.first)
	})
	for k := range steps {
		kept += stepUnits(targets[steps[k].target].Layer, roundTo)
		steps[k].share = float64(kept) / float64(units)
	}
	return steps
}

func scoreOf(units []rankedUnit) float64 {
	total := 0.0
	for _, u := range units {
		total += u.score
	}
	return total
}

func sum(values []float64) float64 {
	total := 0.0
	for _, v := range values {
		total += v
	}
	return total
}
