package planning

import (
	"math"
	"strconv"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// allocation is the allocation steps of a target above its floor, best first: after n steps the
// layer keeps floor + n*size units.
type allocation struct {
	*target
	floor, size int
	values      []float64 // of each step, falling; comparable within a schedule
}

// allocationOf makes the steps of a target. A step's value is the mean normalised importance of its
// units. In a joint plan it is the step's share of the layer's importance over its share of the
// model's cost.
func (v *solver) allocationOf(t *target, r Request) (allocation, error) {
	floor, err := floorUnits(t.Layer, r)
	if err != nil {
		return allocation{}, err
	}
	a := allocation{target: t, floor: floor, size: stepUnits(t.Layer, r.RoundTo)}
	a.values = make([]float64, (t.Units-floor)/a.size)
	if !r.Joint && r.Widths == Uniform && !whole(t.Layer) {
		return a, nil // a schedule of its own, whose order is that of the steps
	}
	for k := range a.values {
		first := floor + k*a.size
		a.values[k] = sum(t.importance[first:first+a.size]) / float64(a.size)
		if r.Joint {
			a.values[k] = perCost(a.values[k]/float64(t.Units), t.cost/v.goal.dense)
		}
	}
	return a, nil
}

func (a allocation) kept(steps int) int { return a.floor + steps*a.size }

// gain is the normalised importance of a step over what the step costs.
func (a allocation) gain(step int) float64 {
	total := 0.0
	for _, u := range a.units[a.kept(step):a.kept(step+1)] {
		total += a.scores[u]
	}
	return perCost(total*a.scale, float64(a.size)*a.cost)
}

// perCost divides; what costs nothing comes first.
func perCost(value, cost float64) float64 {
	if cost == 0 {
		return math.Inf(1)
	}
	return value / cost
}

func sum(values []float64) float64 {
	total := 0.0
	for _, v := range values {
		total += v
	}
	return total
}

// whole reports whether a layer is one unit that goes or stays as a whole.
func whole(l statistics.Layer) bool { return l.MayVanish && l.Units == 1 }

// stepUnits returns how many units of a layer one step has: round_to of each part, or one.
func stepUnits(l statistics.Layer, roundTo int) int {
	if l.Rounds {
		return roundTo * l.Parts
	}
	return 1
}

// small reports whether a layer has no multiple of round_to units: it stays whole.
func small(l statistics.Layer, roundTo int) bool { return l.Rounds && roundTo > l.Units/l.Parts }

// checkRounding refuses a round_to that is more than each of the layers which round has.
func checkRounding(targets []target, roundTo int) error {
	var first *target
	for i, t := range targets {
		switch {
		case t.Rounds && !small(t.Layer, roundTo):
			return nil
		case t.Rounds && first == nil:
			first = &targets[i]
		}
	}
	if first == nil {
		return nil
	}
	return fault.New(fault.Value, "layer %q has %d units, fewer than round_to %d%s, and no layer "+
		"that rounds has more; lower round_to or put such layers in ignored_layers",
		first.Name, first.Units, roundTo, ofParts(first.Layer))
}

// floorUnits returns the least number of units that a layer keeps: the share that the request's
// floor asks for, in whole steps, and at least one step; a layer that may vanish keeps none.
func floorUnits(l statistics.Layer, r Request) (int, error) {
	size := stepUnits(l, r.RoundTo)
	switch least := int(math.Ceil(r.Floor*float64(l.Units) - slack)); {
	case small(l, r.RoundTo):
		return l.Units, nil
	case l.MayVanish:
		return 0, nil
	case (least+size-1)/size*size > l.Units:
		return 0, fault.New(fault.Value,
			"layer %q has %d units, and no multiple of round_to %d%s up to them is at least the "+
				"floor's %d; lower floor or round_to, or put the layer in ignored_layers",
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
