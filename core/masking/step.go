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
	worth  float64 // what turns a score into a multiple of the layer's mean
}

type rankedUnit struct {
	score float64
	unit  int32
}

// rank sorts the units of the selected layers: best score first, ties by lower index.
func rank(s criteria.Scores, selected []bool) []ranked {
	var targets []ranked
	offsets := statistics.Offsets(s.Layers)
	for i, l := range s.Layers {
		if !selected[i] {
			continue
		}
		t := ranked{Layer: l, offset: offsets[i], units: make([]rankedUnit, l.Units)}
		magnitude := 0.0
		for u, score := range s.Score[offsets[i]:offsets[i+1]] {
			t.units[u] = rankedUnit{score, int32(u)}
			magnitude += math.Abs(score)
		}
		if magnitude > 0 {
			t.worth = float64(l.Units) / magnitude
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
	score  float64 // sum over its units
	share  float64 // the share of its pool that is kept once it is
	gain   float64 // worth per MAC
}

// order lists the steps above the floors in the order in which a growing budget takes them: by the share of the pool
// kept, so that all pools grow alike; among equal shares best worth per MAC first; then by lower index. A pool is a
// layer, or with global scope all layers of a group.
func order(targets []ranked, scope string, roundTo int) []step {
	var steps []step
	for _, pool := range pools(targets, scope) {
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

// pools returns the targets of each pool.
func pools(targets []ranked, scope string) [][]int {
	var all [][]int
	places := map[string]int{}
	for i, t := range targets {
		place, known := places[t.Group]
		if scope == ScopeGlobal && known {
			all[place] = append(all[place], i)
			continue
		}
		places[t.Group] = len(all)
		all = append(all, []int{i})
	}
	return all
}

// poolSteps lists the steps of a pool, best mean score first, each with the share of the pool kept once it is taken.
// All steps of a pool have the same number of units, so the sum of scores ranks as the mean does.
func poolSteps(targets []ranked, pool []int, roundTo int) []step {
	var steps []step
	units, kept := 0, 0
	for _, i := range pool {
		t := targets[i]
		size := stepUnits(t.Layer, roundTo)
		units += t.Units
		kept += size // the floor
		for first := size; first+size <= t.Units; first += size {
			score := 0.0
			for _, u := range t.units[first : first+size] {
				score += u.score
			}
			gain := math.Inf(1) // free
			if t.UnitMACs > 0 {
				gain = score * t.worth / (float64(size) * float64(t.UnitMACs))
			}
			steps = append(steps, step{target: int32(i), first: int32(first), score: score, gain: gain})
		}
	}
	slices.SortFunc(steps, func(a, b step) int {
		switch {
		case a.score != b.score:
			return cmp.Compare(b.score, a.score)
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
