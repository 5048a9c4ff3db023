package planning

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

// slack forgives the rounding of shares: 1-0.9 is a little below 0.1. Shares of real layers lie much further apart.
const slack = 1e-12

// Input is what a plan is made from.
type Input struct {
	Scores  criteria.Scores  // rank the units of each layer
	Widths  *criteria.Scores // share the units that stay out among layers; nil for uniform widths
	Latency *LatencyTable    // nil when latencies do not matter
}

// Solve makes the plan of a request.
//
// All units are put into one fixed order, in steps (round_to units of each part of a layer; one head; one branch), on
// top of a floor of a step, or of the share that floor asks for. The plan is the longest prefix of the order that the budget
// allows, by the exact cost of the prefix: it never exceeds the budget, and the next step of the order would. In the order,
//   - with uniform widths, all layers shrink by the same ratio, and with a pruning ratio none keeps more than its share,
//     floors excepted; branches share a pool, for a layer of one unit cannot shrink;
//   - with widths, all layers of a group share a pool, and go by what their units are worth in it;
//   - joint, all layers share one pool, and go by what their units are worth for what they cost.
//
// Pools grow alike, by the share of their units. Of the steps with which several pools reach the same share at once, those of
// best score per cost come first.
//
// Errors: value (the request, costs, latencies), layer (an ignored layer that does not exist, none left), budget (names the
// least that can be reached), shape (widths of other layers), and those of [criteria.Scores.Validate].
func Solve(in Input, r Request) (Plan, Report, error) {
	r, err := r.normalized()
	if err != nil {
		return Plan{}, Report{}, err
	}
	s := in.Scores
	if err := s.Validate(); err != nil {
		return Plan{}, Report{}, err
	}
	widths, err := widthsOf(in, &r)
	if err != nil {
		return Plan{}, Report{}, err
	}
	selected, err := r.selects(s.Layers)
	if err != nil {
		return Plan{}, Report{}, err
	}
	prices, err := pricingOf(s.Model, s.Layers, s.Metadata, in.Latency)
	if err != nil {
		return Plan{}, Report{}, err
	}
	v := solver{layers: s.Layers, prices: prices, dense: prices.of(denseUnits(s.Layers)), targets: rank(s, widths, selected)}
	if v.goal, err = budgetOf(r, prices, v.dense); err != nil {
		return Plan{}, Report{}, err
	}
	for i, t := range v.targets {
		v.targets[i].cost = v.goal.unitCost(s.Layers, t.layer)
	}
	kept, err := v.solve(r)
	if err != nil {
		return Plan{}, Report{}, err
	}
	p := v.plan(s, r, kept)
	rep := v.report(r, kept)
	if r.RoundTo > 1 {
		free := r
		free.RoundTo = 1
		if kept, err = v.solve(free); err != nil {
			return Plan{}, Report{}, err
		}
		rep.RoundingPrice = v.keptUtility(kept) - rep.KeptUtility
	}
	return p, rep, nil
}

// widthsOf returns the scores that share widths out, nil for those that rank, and notes in the request what does.
func widthsOf(in Input, r *Request) ([]float64, error) {
	switch {
	case in.Widths != nil:
		if err := in.Widths.Validate(); err != nil {
			return nil, err
		}
		if !slices.Equal(in.Scores.Layers, in.Widths.Layers) {
			return nil, fault.New(fault.Shape, "the %s scores that share the widths out are of other layers than the %s scores that rank; make both from the same statistics", in.Widths.Criterion, in.Scores.Criterion)
		}
		r.Widths = in.Widths.Criterion
		return in.Widths.Score, nil
	case r.Joint:
		r.Widths = in.Scores.Criterion
	default:
		r.Widths = Uniform
	}
	return nil, nil
}

func denseUnits(layers []statistics.Layer) []int {
	units := make([]int, len(layers))
	for i, l := range layers {
		units[i] = l.Units
	}
	return units
}

// solver is a request's model, with what does not change with round_to.
type solver struct {
	layers  []statistics.Layer
	prices  pricing
	dense   Price
	goal    budget
	targets []target
}

// solve returns how many units each layer keeps.
func (v *solver) solve(r Request) ([]int, error) {
	pools, err := v.pools(r)
	if err != nil {
		return nil, err
	}
	taken, high := make([]climb, len(pools)), make([]climb, len(pools))
	for i, p := range pools {
		taken[i], high[i] = make(climb, len(p)), p.whole()
	}
	if v.goal.byShare() {
		for i, p := range pools {
			taken[i] = p.between(taken[i], high[i], func(c climb) bool { return p.share(c) <= v.goal.limit+slack })
		}
		return v.kept(pools, taken), nil
	}
	if least := v.cost(pools, taken); least > v.goal.limit {
		return nil, v.goal.unreachable(least)
	}
	if len(pools) == 1 {
		taken[0] = pools[0].between(taken[0], high[0], func(c climb) bool { return v.cost(pools, []climb{c}) <= v.goal.limit })
	} else {
		v.climbAlike(pools, taken, high)
	}
	return v.kept(pools, taken), nil
}

// pools puts the ladders of all targets into pools: one, one a group, or one a layer.
func (v *solver) pools(r Request) ([]pool, error) {
	var all []pool
	places := map[string]int{}
	for i := range v.targets {
		l, err := v.ladder(&v.targets[i], r)
		if err != nil {
			return nil, err
		}
		name := l.Name
		switch {
		case r.Joint:
			name = ""
		case r.Widths != Uniform || l.Group == statistics.Block:
			name = "\x00" + l.Group // no layer's
		}
		place, known := places[name]
		if !known {
			place = len(all)
			places[name], all = place, append(all, nil)
		}
		all[place] = append(all[place], l)
	}
	return all, nil
}

// ladder makes the steps of a target. A step's value is the mean worth of its units or, joint, the share of the layer's
// worth that it has, over the share of the model's cost.
func (v *solver) ladder(t *target, r Request) (ladder, error) {
	floor, err := floorUnits(t.Layer, r)
	if err != nil {
		return ladder{}, err
	}
	l := ladder{target: t, floor: floor, size: stepUnits(t.Layer, r.RoundTo)}
	l.values = make([]float64, (t.Units-floor)/l.size)
	if !r.Joint && r.Widths == Uniform && t.Group != statistics.Block {
		return l, nil // a pool of its own, where the order is that of the steps
	}
	for k := range l.values {
		first := floor + k*l.size
		l.values[k] = sum(t.curve[first:first+l.size]) / float64(l.size)
		if r.Joint {
			l.values[k] = perCost(l.values[k]/float64(t.Units), t.cost/v.goal.dense)
		}
	}
	return l, nil
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

// climbAlike raises taken, which fits the budget, towards high along all pools at once. It halves the shares between the
// greatest that is known to fit and the least that is known not to, until they are neighbours.
func (v *solver) climbAlike(pools []pool, taken, high []climb) {
	if v.cost(pools, high) <= v.goal.limit {
		copy(taken, high)
		return
	}
	fit, beyond := math.Float64bits(0), math.Float64bits(1) // ordered as the shares are
	for beyond-fit > 1 {
		share := fit + (beyond-fit)/2
		middle := make([]climb, len(pools))
		for i, p := range pools {
			middle[i] = p.between(taken[i], high[i], func(c climb) bool { return p.share(c) <= math.Float64frombits(share) })
		}
		if v.cost(pools, middle) <= v.goal.limit {
			fit = share
			copy(taken, middle)
		} else {
			beyond = share
			copy(high, middle)
		}
	}
	v.addTied(pools, taken, high)
}

// tie is the step with which a pool reaches a share, when others reach it too.
type tie struct {
	pool, ladder int
	layer        int
	gain         float64 // score per cost
}

// addTied takes the steps from taken to high, at most one a pool, as long as they fit. It stops at the first that does not:
// to go on with smaller ones would make a plan that a slightly bigger budget contradicts.
func (v *solver) addTied(pools []pool, taken, high []climb) {
	var ties []tie
	for i, p := range pools {
		for k, l := range p {
			if taken[i][k] < high[i][k] {
				ties = append(ties, tie{i, k, l.layer, l.gain(taken[i][k])})
			}
		}
	}
	slices.SortFunc(ties, func(a, b tie) int {
		if a.gain != b.gain {
			return cmp.Compare(b.gain, a.gain)
		}
		return cmp.Compare(a.layer, b.layer)
	})
	for _, t := range ties {
		more := slices.Clone(taken)
		more[t.pool] = slices.Clone(taken[t.pool])
		more[t.pool][t.ladder]++
		if v.cost(pools, more) > v.goal.limit {
			return
		}
		taken[t.pool] = more[t.pool]
	}
}

// kept returns how many units each layer keeps.
func (v *solver) kept(pools []pool, taken []climb) []int {
	kept := denseUnits(v.layers)
	for i, p := range pools {
		for k, l := range p {
			kept[l.layer] = l.kept(taken[i][k])
		}
	}
	return kept
}

func (v *solver) cost(pools []pool, taken []climb) float64 { return v.goal.of(v.kept(pools, taken)) }

// plan keeps the first units of each target's ranking and all of the other layers.
func (v *solver) plan(s criteria.Scores, r Request, kept []int) Plan {
	p := Plan{
		Model: s.Model, Layers: slices.Clone(s.Layers), Criterion: s.Criterion, Seed: s.Seed, Score: slices.Clone(s.Score),
		Keep: slices.Repeat([]bool{true}, len(s.Score)), Request: r, Planned: v.prices.of(kept), Metadata: maps.Clone(s.Metadata),
	}
	for _, t := range v.targets {
		for _, u := range t.units[kept[t.layer]:] {
			p.Keep[t.offset+int(u)] = false
		}
	}
	return p
}
