package masking

// Report says what a plan comes to.
type Report struct {
	Budget        float64       `json:"budget"`         // the target: MACs of one image, or the pruning ratio
	DenseMACs     int64         `json:"dense_macs"`     // of one image; 0 when the model did not record them, MACs then too
	MACs          int64         `json:"macs"`           // of one image, after pruning
	MACsRatio     float64       `json:"macs_ratio"`     // MACs / DenseMACs
	Miss          float64       `json:"miss"`           // (achieved - target) / target, of MACs or of the pruning ratio
	KeptUtility   float64       `json:"kept_utility"`   // share of the pruned layers' scores that stays, each layer weighed by its units
	RoundingPrice float64       `json:"rounding_price"` // KeptUtility of the same request with round_to 1, minus KeptUtility
	Layers        []LayerReport `json:"layers"`
}

// LayerReport is one layer of a Report.
type LayerReport struct {
	Layer string `json:"layer"`
	Group string `json:"group"`
	Units int    `json:"units"`
	Kept  int    `json:"kept"`
}

func newReport(p Plan, goal budget, targets []ranked, kept []int) Report {
	r := Report{DenseMACs: p.Model.MACs, KeptUtility: keptUtility(targets, kept)}
	if r.DenseMACs > 0 {
		r.MACs = p.macs()
		r.MACsRatio = float64(r.MACs) / float64(r.DenseMACs)
	}
	r.Budget = float64(goal.macs)
	achieved := float64(r.MACs)
	if goal.ratio > 0 {
		r.Budget, achieved = goal.ratio, removedShare(targets, kept)
	}
	r.Miss = (achieved - r.Budget) / r.Budget
	for i, units := range p.kept() {
		l := p.Layers[i]
		r.Layers = append(r.Layers, LayerReport{Layer: l.Name, Group: l.Group, Units: l.Units, Kept: units})
	}
	return r
}

// removedShare returns the share of the targets' units that goes.
func removedShare(targets []ranked, kept []int) float64 {
	units, removed := 0, 0
	for i, t := range targets {
		units += t.Units
		removed += t.Units - kept[i]
	}
	return float64(removed) / float64(units)
}

// keptUtility returns the share of worth that stays; 1 when there is none to lose.
func keptUtility(targets []ranked, kept []int) float64 {
	total, stays := 0.0, 0.0
	for i, t := range targets {
		for rank, u := range t.units {
			worth := u.score * t.worth
			total += worth
			if rank < kept[i] {
				stays += worth
			}
		}
	}
	if total == 0 {
		return 1
	}
	return stays / total
}
