package planning

import (
	"math"
	"path"
	"slices"
	"strings"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// Uniform is the value of Request.Widths for uniform widths: every layer loses the same share of
// its units.
const Uniform = "uniform"

// Request is what a user asks of a plan. Exactly one of PruningRatio, MACs, Params and LatencyMS
// sets the budget.
type Request struct {
	// share of the units to remove, above 0 and below 1; 0 for another budget
	PruningRatio float64 `json:"pruning_ratio"`
	// "0.35" of the dense model's MACs, or MACs of one image: "350M", "1.2G"
	MACs string `json:"macs"`
	// "0.5" of the dense model's parameters, or parameters: "2.5M"
	Params    string  `json:"params"`
	LatencyMS float64 `json:"latency_ms"` // of a batch, as the latency table was measured
	// Uniform, or the criterion that sets how many units each layer keeps; set by Solve
	Widths string `json:"widths"`
	// one schedule over all groups, by normalised importance per cost
	Joint bool `json:"joint"`
	// least share of each layer's units that is kept, those that may vanish excepted
	Floor float64 `json:"floor"`
	// each part of a layer that rounds keeps a multiple of it, if it has so many; 0 counts as 1
	RoundTo int      `json:"round_to"`
	Groups  []string `json:"groups"` // the groups to prune; all when empty
	// names, or patterns as path.Match reads them, of layers that are not pruned
	IgnoredLayers []string `json:"ignored_layers"`
}

// budgets counts the budgets that are set.
func (r Request) budgets() int {
	set := 0
	for _, given := range []bool{
		r.PruningRatio != 0, r.MACs != "", r.Params != "", r.LatencyMS != 0,
	} {
		if given {
			set++
		}
	}
	return set
}

// Validate refuses what is no request for any model.
//
// Errors: value.
func (r Request) Validate() error {
	_, err := r.normalized()
	return err
}

// normalized fills in the defaults and refuses requests that are invalid for every model.
func (r Request) normalized() (Request, error) {
	switch {
	case r.budgets() != 1:
		return r, fault.New(fault.Value,
			"pruning_ratio is %v, macs is %q, params is %q and latency_ms is %v; "+
				"set exactly one of them",
			r.PruningRatio, r.MACs, r.Params, r.LatencyMS)
	case r.PruningRatio != 0 && !(r.PruningRatio > 0 && r.PruningRatio < 1):
		return r, fault.New(fault.Value,
			"pruning_ratio is %v; it is the share of units to remove, above 0 and below 1",
			r.PruningRatio)
	case r.LatencyMS != 0 && !(r.LatencyMS > 0 && !math.IsInf(r.LatencyMS, 0)):
		return r, fault.New(fault.Value,
			"latency_ms is %v; it is the milliseconds that a batch may take, above 0", r.LatencyMS)
	case !(r.Floor >= 0 && r.Floor < 1):
		return r, fault.New(fault.Value,
			"floor is %v; it is the least share of each layer's units that stays, "+
				"from 0 and below 1",
			r.Floor)
	case r.RoundTo < 0:
		return r, fault.New(fault.Value, "round_to is %d; it must be at least 1", r.RoundTo)
	}
	r.RoundTo = max(r.RoundTo, 1)
	r.Groups = append([]string{}, r.Groups...) // [] in JSON, not null
	r.IgnoredLayers = append([]string{}, r.IgnoredLayers...)
	return r, nil
}

// selects reports for each layer whether the request prunes it.
func (r Request) selects(layers []statistics.Layer) ([]bool, error) {
	selected := make([]bool, len(layers))
	for i, l := range layers {
		selected[i] = len(r.Groups) == 0 || slices.Contains(r.Groups, l.Group)
	}
	for _, group := range r.Groups {
		if !slices.ContainsFunc(layers, func(l statistics.Layer) bool { return l.Group == group }) {
			return nil, fault.New(fault.Value,
				"groups has %q, which no layer is of; the groups of these scores are %s", group,
				strings.Join(groupsOf(layers), ", "))
		}
	}
	for _, pattern := range r.IgnoredLayers {
		found := false
		for i, l := range layers {
			match, err := path.Match(pattern, l.Name)
			if err != nil {
				return nil, fault.New(fault.Value,
					"ignored_layers has %q, which is no valid pattern: %w; "+
						"use a layer's name, or * and ? in it",
					pattern, err)
			}
			if match || pattern == l.Name {
				selected[i], found = false, true
			}
		}
		if !found {
			return nil, fault.New(fault.Layer,
				"ignored_layers has %q, which matches no layer; the layers run from %q to %q",
				pattern, layers[0].Name, layers[len(layers)-1].Name)
		}
	}
	if !slices.Contains(selected, true) {
		return nil, fault.New(fault.Layer,
			"groups and ignored_layers leave no layer to prune; ignore fewer of the %d layers",
			len(layers))
	}
	return selected, nil
}

// groupsOf returns the groups in the order in which they first appear.
func groupsOf(layers []statistics.Layer) []string {
	var groups []string
	for _, l := range layers {
		if !slices.Contains(groups, l.Group) {
			groups = append(groups, l.Group)
		}
	}
	return groups
}
