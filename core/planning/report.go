package planning

// Report has the costs of a plan. MACs are those of one image and latencies those of a batch of the
// latency table; what the model did not record, or no table has, is 0.
type Report struct {
	// the target: MACs, parameters, ms, or the pruning ratio
	Budget         float64 `json:"budget"`
	DenseMACs      int64   `json:"dense_macs"`
	MACs           int64   `json:"macs"`
	MACsRatio      float64 `json:"macs_ratio"` // MACs / DenseMACs
	DenseParams    int64   `json:"dense_params"`
	Params         int64   `json:"params"`
	DenseLatencyMS float64 `json:"dense_latency_ms"`
	LatencyMS      float64 `json:"latency_ms"`
	// (achieved - target) / target, of what the budget limits
	Miss float64 `json:"miss"`
	// share of the pruned layers' normalised importance that is kept. It compares plans that differ
	// in nothing but their rounding: other widths keep less of it, and may be better.
	KeptUtility float64 `json:"kept_utility"`
	// KeptUtility of the same request with round_to 1, minus KeptUtility
	RoundingPrice float64       `json:"rounding_price"`
	Layers        []LayerReport `json:"layers"`
}

// LayerReport is one layer of a Report.
type LayerReport struct {
	Layer string `json:"layer"`
	Group string `json:"group"`
	Units int    `json:"units"`
	Kept  int    `json:"kept"`
}

func (v *solver) report(r Request, kept []int) Report {
	found := v.prices.of(kept)
	rep := Report{
		DenseMACs: v.dense.MACs, MACs: found.MACs, DenseParams: v.dense.Params,
		Params:         found.Params,
		DenseLatencyMS: v.dense.LatencyMS, LatencyMS: found.LatencyMS,
		KeptUtility: v.keptUtility(kept),
	}
	if rep.DenseMACs > 0 {
		rep.MACsRatio = float64(rep.MACs) / float64(rep.DenseMACs)
	}
	achieved := 0.0
	if v.goal.byShare() {
		rep.Budget, achieved = r.PruningRatio, v.removedShare(kept)
	} else {
		rep.Budget, achieved = v.goal.limit, v.goal.of(kept)
	}
	rep.Miss = (achieved - rep.Budget) / rep.Budget
	for i, l := range v.layers {
		rep.Layers = append(rep.Layers, LayerReport{
			Layer: l.Name, Group: l.Group, Units: l.Units, Kept: kept[i],
		})
	}
	return rep
}

// removedShare returns the share of the targets' units that is removed.
func (v *solver) removedShare(kept []int) float64 {
	units, removed := 0, 0
	for _, t := range v.targets {
		units += t.Units
		removed += t.Units - kept[t.layer]
	}
	return float64(removed) / float64(units)
}

// keptUtility returns the share of the targets' normalised importance that is kept; 1 when they
// have none.
func (v *solver) keptUtility(kept []int) float64 {
	total, stays := 0.0, 0.0
	for _, t := range v.targets {
		for place, u := range t.units {
			importance := t.scores[u] * t.scale
			total += importance
			if place < kept[t.layer] {
				stays += importance
			}
		}
	}
	if total == 0 {
		return 1
	}
	return stays / total
}
