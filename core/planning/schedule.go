package planning

import (
	"math"
	"slices"
	"sort"
)

// schedule is the greedy schedule of some allocations: their steps in one order, greatest value
// first, equal values by lower layer, then by lower step.
type schedule []allocation

// stepCounts has the number of steps taken of each allocation of a schedule.
type stepCounts []int

// schedulesOf puts the allocations of all targets into schedules: one, one a group, or one a layer.
func (v *solver) schedulesOf(r Request) ([]schedule, error) {
	if err := checkRounding(v.targets, r.RoundTo); err != nil {
		return nil, err
	}
	var all []schedule
	type key struct{ layer, group string }
	index := map[key]int{}
	for i := range v.targets {
		a, err := v.allocationOf(&v.targets[i], r)
		if err != nil {
			return nil, err
		}
		shared := key{layer: a.Name}
		switch {
		case r.Joint:
			shared = key{}
		case r.Widths != Uniform || whole(a.Layer):
			shared = key{group: a.Group}
		}
		at, known := index[shared]
		if !known {
			at = len(all)
			index[shared], all = at, append(all, nil)
		}
		all[at] = append(all[at], a)
	}
	if !r.Joint && r.Widths != Uniform {
		for _, s := range all {
			s.weighCosts()
		}
	}
	return all, nil
}

// sameCost is the ratio up to which the costs of two units count as the same.
const sameCost = 1.1

// weighCosts orders the steps by their share of the layer's importance over what they cost, where a
// unit of one layer costs more than one of another, as the channels of wide and of narrow maps: the
// order of a joint plan. A residual layer's share is multiplied by the square root of its units
// over their mean: few and costly ones go first, since their stream carries on without them. Layers
// that go or stay whole are compared by their importance.
func (s schedule) weighCosts() {
	costs := make([]float64, len(s))
	for i, a := range s {
		if whole(a.Layer) {
			return
		}
		costs[i] = a.cost
	}
	if slices.Max(costs) <= sameCost*slices.Min(costs) {
		return
	}
	mean := s.meanResidualUnits()
	for i, a := range s {
		share := 1 / float64(a.Units)
		if a.Residual {
			share *= math.Sqrt(float64(a.Units) / mean)
		}
		for k := range a.values {
			a.values[k] = perCost(a.values[k]*share, costs[i])
		}
	}
}

// meanResidualUnits is the mean number of units of the residual layers.
func (s schedule) meanResidualUnits() float64 {
	units, layers := 0, 0
	for _, a := range s {
		if a.Residual {
			units += a.Units
			layers++
		}
	}
	return float64(units) / float64(max(layers, 1))
}

// all counts every step.
func (s schedule) all() stepCounts {
	counts := make(stepCounts, len(s))
	for i, a := range s {
		counts[i] = len(a.values)
	}
	return counts
}

// share returns the share of the schedule's units that is kept after some steps.
func (s schedule) share(taken stepCounts) float64 {
	units, kept := 0, 0
	for i, a := range s {
		units += a.Units
		kept += a.kept(taken[i])
	}
	return float64(kept) / float64(units)
}

// longestFit returns the longest prefix of the schedule from low to high that fits; low, if no
// longer one does. Every prefix of one that fits must fit, too.
func (s schedule) longestFit(low, high stepCounts, fits func(stepCounts) bool) stepCounts {
	if slices.Equal(low, high) || fits(high) {
		return high
	}
	fit, beyond := s.keyRange(low, high)
	for fit-beyond > 1 {
		middle := beyond + (fit-beyond)/2
		if fits(s.above(low, high, middle)) {
			fit = middle
		} else {
			beyond = middle
		}
	}
	low, high = s.above(low, high, fit), s.above(low, high, beyond)
	equal := 0 // steps of one value, in the order of the layers
	for i := range low {
		equal += high[i] - low[i]
	}
	return low.plus(high,
		sort.Search(equal, func(n int) bool { return !fits(low.plus(high, n+1)) }))
}

// keyRange returns a key above the values of all steps from low to high, and the least key among
// them.
func (s schedule) keyRange(low, high stepCounts) (above, least uint64) {
	least = math.MaxUint64
	for i, a := range s {
		if low[i] < high[i] {
			above = max(above, keyOf(a.values[low[i]])+1)
			least = min(least, keyOf(a.values[high[i]-1]))
		}
	}
	return above, least
}

// above returns the steps from low to high whose value has at least a key.
func (s schedule) above(low, high stepCounts, key uint64) stepCounts {
	counts := make(stepCounts, len(s))
	for i, a := range s {
		values := a.values[low[i]:high[i]]
		counts[i] = low[i] + sort.Search(len(values), func(k int) bool {
			return keyOf(values[k]) < key
		})
	}
	return counts
}

// plus takes n steps more towards high, all of one allocation before the next.
func (c stepCounts) plus(high stepCounts, n int) stepCounts {
	more := slices.Clone(c)
	for i := range c {
		steps := min(n, high[i]-c[i])
		more[i] += steps
		n -= steps
	}
	return more
}
