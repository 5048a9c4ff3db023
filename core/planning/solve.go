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

// slack absorbs the rounding of shares: 1-0.9 is a little below 0.1. Shares of real layers differ
// by much more.
const slack = 1e-12

// Input is what a plan is made from.
type Input struct {
	Scores  criteria.Scores  // rank the units of each layer
	Widths  *criteria.Scores // set how many units each layer keeps; nil for uniform widths
	Latency *LatencyTable    // nil when latencies do not matter
}

// Solve makes the plan of a request.
//
// A greedy schedule puts all units into one fixed order of allocation steps (round_to units of each
// part of a layer that rounds; else one unit), on top of a floor of one step, or of the share that
// the request's floor asks for; a layer that may vanish has none, and one of fewer units than
// round_to stays whole. The plan is the longest prefix of the order that the budget allows, by the
// exact cost of the prefix: it never exceeds the budget, and the next step of the order would. The
// order is:
//   - with uniform widths, all layers shrink by the same ratio, and with a pruning ratio none keeps
//     more than its share, floors excepted; layers of one unit that may vanish share a schedule,
//     because they cannot shrink;
//   - with widths, all layers of a group share a schedule, in the order of normalised importance,
//     or as in a joint plan where the units of one layer cost more than those of another;
//   - joint, all layers share one schedule, in the order of normalised importance per cost.
//
// Several schedules advance evenly, by the share of their units that is kept. Where several reach
// the same share with their next step, these steps are the candidates, and the one of greatest
// normalised importance per cost comes first.
//
// Errors: value (the request, costs, latencies), layer (an ignored layer that does not exist, none
// left), budget (with the least that can be reached), shape (widths of other layers), and those of
// [criteria.Scores.Validate].
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
	v := solver{
		layers: s.Layers, prices: prices, dense: prices.of(denseUnits(s.Layers)),
		targets: rank(s, widths, selected),
	}
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

// widthsOf returns the scores that set the widths of the layers, nil for those that rank, and notes
// their criterion in the request.
func widthsOf(in Input, r *Request) ([]float64, error) {
	switch {
	case in.Widths != nil:
		if err := in.Widths.Validate(); err != nil {
			return nil, err
		}
		if !slices.Equal(in.Scores.Layers, in.Widths.Layers) {
			return nil, fault.New(fault.Shape,
				"the %s scores that share the widths out are of other layers than the %s scores "+
					"that rank; make both from the same statistics",
				in.Widths.Criterion, in.Scores.Criterion)
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
	schedules, err := v.schedulesOf(r)
	if err != nil {
		return nil, err
	}
	taken, high := make([]stepCounts, len(schedules)), make([]stepCounts, len(schedules))
	for i, s := range schedules {
		taken[i], high[i] = make(stepCounts, len(s)), s.all()
	}
	if v.goal.byShare() {
		for i, s := range schedules {
			taken[i] = s.longestFit(taken[i], high[i], func(c stepCounts) bool {
				return s.share(c) <= v.goal.limit+slack
			})
		}
		return v.kept(schedules, taken), nil
	}
	if least := v.cost(schedules, taken); least > v.goal.limit {
		return nil, v.goal.unreachable(least, v.roundingBehind(least, r))
	}
	if len(schedules) == 1 {
		taken[0] = schedules[0].longestFit(taken[0], high[0], func(c stepCounts) bool {
			return v.cost(schedules, []stepCounts{c}) <= v.goal.limit
		})
	} else {
		v.takeEvenly(schedules, taken, high)
	}
	return v.kept(schedules, taken), nil
}

// roundingBehind returns the round_to without which layers would come below their least cost, or 0.
func (v *solver) roundingBehind(least float64, r Request) int {
	if r.RoundTo <= 1 {
		return 0
	}
	free := r
	free.RoundTo = 1
	schedules, err := v.schedulesOf(free)
	if err != nil {
		return 0
	}
	none := make([]stepCounts, len(schedules))
	for i, s := range schedules {
		none[i] = make(stepCounts, len(s))
	}
	if v.cost(schedules, none) < least {
		return r.RoundTo
	}
	return 0
}

// takeEvenly raises taken, which fits the budget, towards high along all schedules at once. It
// bisects the share of units kept, between the greatest share known to fit and the least known not
// to, until the two are neighbouring float64 numbers.
func (v *solver) takeEvenly(schedules []schedule, taken, high []stepCounts) {
	if v.cost(schedules, high) <= v.goal.limit {
		copy(taken, high)
		return
	}
	fit, beyond := math.Float64bits(0), math.Float64bits(1) // ordered as the shares are
	for beyond-fit > 1 {
		share := fit + (beyond-fit)/2
		middle := make([]stepCounts, len(schedules))
		for i, s := range schedules {
			middle[i] = s.longestFit(taken[i], high[i], func(c stepCounts) bool {
				return s.share(c) <= math.Float64frombits(share)
			})
		}
		if v.cost(schedules, middle) <= v.goal.limit {
			fit = share
			copy(taken, middle)
		} else {
			beyond = share
			copy(high, middle)
		}
	}
	v.takeCandidates(schedules, taken, high)
}

// candidate is the next step of a schedule, where several schedules reach one share with a step.
type candidate struct {
	schedule, allocation int
	layer                int
	gain                 float64 // normalised importance per cost
}

// takeCandidates takes the steps from taken to high, at most one a schedule, as long as they fit:
// greatest gain first, equal gains by lower layer. It stops at the first step that does not fit: to
// go on with smaller ones would make a plan that a slightly bigger budget contradicts.
func (v *solver) takeCandidates(schedules []schedule, taken, high []stepCounts) {
	var candidates []candidate
	for i, s := range schedules {
		for k, a := range s {
			if taken[i][k] < high[i][k] {
				candidates = append(candidates, candidate{i, k, a.layer, a.gain(taken[i][k])})
			}
		}
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		if a.gain != b.gain {
			return cmp.Compare(b.gain, a.gain)
		}
		return cmp.Compare(a.layer, b.layer)
	})
	for _, c := range candidates {
		more := slices.Clone(taken)
		more[c.schedule] = slices.Clone(taken[c.schedule])
		more[c.schedule][c.allocation]++
		if v.cost(schedules, more) > v.goal.limit {
			return
		}
		taken[c.schedule] = more[c.schedule]
	}
}

// kept returns how many units each layer keeps.
func (v *solver) kept(schedules []schedule, taken []stepCounts) []int {
	kept := denseUnits(v.layers)
	for i, s := range schedules {
		for k, a := range s {
			kept[a.layer] = a.kept(taken[i][k])
		}
	}
	return kept
}

func (v *solver) cost(schedules []schedule, taken []stepCounts) float64 {
	return v.goal.of(v.kept(schedules, taken))
}

// plan keeps the first units of each target's ranking and all of the other layers.
func (v *solver) plan(s criteria.Scores, r Request, kept []int) Plan {
	p := Plan{
		Model: s.Model, Layers: slices.Clone(s.Layers), Criterion: s.Criterion, Seed: s.Seed,
		Score: slices.Clone(s.Score), Keep: slices.Repeat([]bool{true}, len(s.Score)),
		Request: r, Planned: v.prices.of(kept), Metadata: maps.Clone(s.Metadata),
	}
	for _, t := range v.targets {
		for _, u := range t.units[kept[t.layer]:] {
			p.Keep[t.offset+int(u)] = false
		}
	}
	return p
}
