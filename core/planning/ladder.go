package planning

import (
	"math"
	"slices"
	"sort"
	"strconv"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// rounded tells whether round_to applies to a layer: where units are channels. Heads and branches go one by one.
func rounded(l statistics.Layer) bool {
	return l.Group != statistics.Heads && l.Group != statistics.Block
}

// stepUnits returns how many units of a layer come and go together: round_to of each part, or one.
func stepUnits(l statistics.Layer, roundTo int) int {
	if rounded(l) {
		return roundTo * l.Parts
	}
	return 1
}

// floorUnits returns how many units of a layer stay at the least: the floor's share in whole steps, and one step; of a
// branch none.
func floorUnits(l statistics.Layer, r Request) (int, error) {
	if rounded(l) && r.RoundTo > l.Units/l.Parts {
		return 0, fault.New(fault.Value, "layer %q has %d units, fewer than round_to %d%s; lower round_to or put the layer in ignored_layers", l.Name, l.Units, r.RoundTo, ofParts(l))
	}
	size := stepUnits(l, r.RoundTo)
	switch least := int(math.Ceil(r.Floor*float64(l.Units) - slack)); {
	case l.Group == statistics.Block:
		return 0, nil
	case (least+size-1)/size*size > l.Units:
		return 0, fault.New(fault.Value, "layer %q has %d units, and no multiple of round_to %d%s up to them is at least the floor's %d; lower floor or round_to, or put the layer in ignored_layers",
			l.Name, l.Units, r.RoundTo, ofParts(l), least)
	default:
		return max((least+size-1)/size, 1) * size, nil
	}
}

func ofParts(l statistics.Layer) string {
	if l.Parts == 1 {
		return ""
	}
	return " in each of its " + strconv.Itoa(l.Parts) + " parts"
}

// ladder is the steps of a target above its floor, best first: after n of them it keeps floor + n*size units.
type ladder struct {
	*target
	floor, size int
	values      []float64 // of each step, beside those of its pool, falling
}

func (l ladder) kept(steps int) int { return l.floor + steps*l.size }

// gain is the score of a step for what it costs, in multiples of the layer's mean score.
func (l ladder) gain(step int) float64 {
	total := 0.0
	for _, u := range l.units[l.kept(step):l.kept(step+1)] {
		total += l.scores[u]
	}
	return perCost(total*l.worth, float64(l.size)*l.cost)
}

// pool is ladders that are climbed in one order: greatest value first, ties by lower layer, then lower step.
type pool []ladder

// climb is how many steps of each ladder of a pool are taken.
type climb []int

func (p pool) whole() climb {
	c := make(climb, len(p))
	for i, l := range p {
		c[i] = len(l.values)
	}
	return c
}

// share returns the share of the pool's units that a climb keeps.
func (p pool) share(c climb) float64 {
	units, kept := 0, 0
	for i, l := range p {
		units += l.Units
		kept += l.kept(c[i])
	}
	return float64(kept) / float64(units)
}

// between returns the longest climb in the pool's order that fits, of those from low to high; low, if no longer one does. A
// climb that fits must not have a shorter one that does not.
func (p pool) between(low, high climb, fits func(climb) bool) climb {
	if slices.Equal(low, high) || fits(high) {
		return high
	}
	fit, beyond := p.keys(low, high)
	for fit-beyond > 1 {
		middle := beyond + (fit-beyond)/2
		if fits(p.above(low, high, middle)) {
			fit = middle
		} else {
			beyond = middle
		}
	}
	low, high = p.above(low, high, fit), p.above(low, high, beyond)
	tied := 0 // steps of one value, in the order of the layers
	for i := range low {
		tied += high[i] - low[i]
	}
	return low.and(high, sort.Search(tied, func(n int) bool { return !fits(low.and(high, n+1)) }))
}

// keys returns a key above the values of all steps from low to high, and the least key among them.
func (p pool) keys(low, high climb) (above, least uint64) {
	least = math.MaxUint64
	for i, l := range p {
		if low[i] < high[i] {
			above, least = max(above, keyOf(l.values[low[i]])+1), min(least, keyOf(l.values[high[i]-1]))
		}
	}
	return above, least
}

// above returns the steps from low to high of which the value has at least a key.
func (p pool) above(low, high climb, key uint64) climb {
	c := make(climb, len(p))
	for i, l := range p {
		values := l.values[low[i]:high[i]]
		c[i] = low[i] + sort.Search(len(values), func(k int) bool { return keyOf(values[k]) < key })
	}
	return c
}

// and takes n steps more towards high, all of one ladder before the next.
func (c climb) and(high climb, n int) climb {
	more := slices.Clone(c)
	for i := range c {
		steps := min(n, high[i]-c[i])
		more[i] += steps
		n -= steps
	}
	return more
}
