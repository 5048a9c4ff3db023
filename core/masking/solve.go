package masking

import (
	"maps"
	"slices"

	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

// slack forgives the rounding of shares: 1-0.9 is a little below 0.1. Shares of real layers lie much further apart.
const slack = 1e-12

// Solve makes the plan of a request with uniform widths; see [SolveWidths].
func Solve(s criteria.Scores, r Request) (Plan, Report, error) {
	r.Widths = Uniform
	return solvePlan(s, nil, r)
}

// SolveWidths makes the plan of a request: s ranks the units of a layer, widths share the units that stay out among the
// layers of a group (see [pools]). Both are scores of the same units, and may be the same scores; with the widths of
// [Solve] every layer gives the same share.
//
// The plan is the longest prefix of the fixed order of steps that the budget allows, on top of a
// floor of one step (round_to units of an MLP, one head) a layer. With a pruning ratio, no group (with uniform widths no
// layer) keeps more than its share, floors excepted. With MACs, layers shrink by the same ratio until the plan
// fits; of the steps that the next smaller ratio would bring back all at once, those of best score per MAC stay as long
// as they fit. The plan never exceeds the MACs and ends less than one step below them, unless it keeps all it can.
//
// Errors: value (the request), layer (an ignored layer that does not exist, none left), budget (names the least
// reachable MACs), shape (widths of other layers), and those of [criteria.Scores.Validate].
func SolveWidths(s, widths criteria.Scores, r Request) (Plan, Report, error) {
	if err := widths.Validate(); err != nil {
		return Plan{}, Report{}, err
	}
	if !slices.Equal(s.Layers, widths.Layers) {
		return Plan{}, Report{}, fault.New(fault.Shape, "the %s scores that share the widths out are of other layers than the %s scores that rank; make both from the same statistics", widths.Criterion, s.Criterion)
	}
	r.Widths = widths.Criterion
	return solvePlan(s, widths.Score, r)
}

// solvePlan plans with the scores that share widths out, or none for uniform widths.
func solvePlan(s criteria.Scores, widths []float64, r Request) (Plan, Report, error) {
	r, err := r.normalized()
	if err != nil {
		return Plan{}, Report{}, err
	}
	if err := s.Validate(); err != nil {
		return Plan{}, Report{}, err
	}
	selected, err := r.selects(s.Layers)
	if err != nil {
		return Plan{}, Report{}, err
	}
	if err := checkMACs(s.Model, s.Layers); err != nil {
		return Plan{}, Report{}, err
	}
	goal, err := budgetOf(r, s.Model.MACs)
	if err != nil {
		return Plan{}, Report{}, err
	}
	targets := rank(s, widths, selected)
	kept, err := solve(s.Model, targets, r, goal)
	if err != nil {
		return Plan{}, Report{}, err
	}
	p := newPlan(s, r, targets, kept)
	rep := newReport(p, goal, targets, kept)
	if r.RoundTo > 1 {
		free := r
		free.RoundTo = 1
		if kept, err = solve(s.Model, targets, free, goal); err != nil {
			return Plan{}, Report{}, err
		}
		rep.RoundingPrice = keptUtility(targets, kept) - rep.KeptUtility
	}
	return p, rep, nil
}

// solve returns how many units each target keeps.
func solve(model statistics.Model, targets []ranked, r Request, goal budget) ([]int, error) {
	kept := make([]int, len(targets))
	for i, t := range targets {
		kept[i] = stepUnits(t.Layer, r.RoundTo)
		if kept[i] > t.Units {
			return nil, fault.New(fault.Value, "layer %q has %d units, fewer than round_to %d; lower round_to or put the layer in ignored_layers", t.Name, t.Units, r.RoundTo)
		}
	}
	steps := order(targets, r.Widths != Uniform, r.RoundTo)
	if goal.ratio > 0 {
		keepShare(kept, targets, steps, r.RoundTo, 1-goal.ratio)
		return kept, nil
	}
	least := model.MACs
	for i, t := range targets {
		least -= int64(t.Units-kept[i]) * t.UnitMACs
	}
	if least > goal.macs {
		return nil, fault.New(fault.Budget, "macs %q allows %d MACs, but pruning these layers reaches %d at the least (%.4f of the dense model's %d); raise the budget, prune more groups or ignore fewer layers",
			r.MACs, goal.macs, least, float64(least)/float64(model.MACs), model.MACs)
	}
	keepMACs(kept, targets, steps, r.RoundTo, goal.macs-least)
	return kept, nil
}

// keepShare adds steps up to a share of each pool.
func keepShare(kept []int, targets []ranked, steps []step, roundTo int, share float64) {
	for _, s := range steps {
		if s.share > share+slack {
			return
		}
		kept[s.target] += stepUnits(targets[s.target].Layer, roundTo)
	}
}

// keepMACs adds steps as long as they fit what is left of the MACs. It stops at the first that does not: to go on with
// smaller ones would make a plan that a slightly bigger budget contradicts.
func keepMACs(kept []int, targets []ranked, steps []step, roundTo int, left int64) {
	for _, s := range steps {
		t := targets[s.target]
		size := stepUnits(t.Layer, roundTo)
		left -= int64(size) * t.UnitMACs
		if left < 0 {
			return
		}
		kept[s.target] += size
	}
}

// newPlan keeps the first units of each target's ranking and all of the other layers.
func newPlan(s criteria.Scores, r Request, targets []ranked, kept []int) Plan {
	p := Plan{
		Model: s.Model, Layers: slices.Clone(s.Layers), Criterion: s.Criterion, Seed: s.Seed,
		Score: slices.Clone(s.Score), Keep: make([]bool, len(s.Score)), Request: r, Metadata: maps.Clone(s.Metadata),
	}
	for i := range p.Keep {
		p.Keep[i] = true
	}
	for i, t := range targets {
		for _, u := range t.units[kept[i]:] {
			p.Keep[t.offset+int(u.unit)] = false
		}
	}
	return p
}
