package monitor

import (
	"fmt"

	"agflow/core/routing"
)

// The names of the watches.
const (
	AccuracyWatch   = "accuracy"
	AgreementWatch  = "agreement"
	EscalationWatch = "escalation"
	PriorWatch      = "prior"
)

// watch bets against one null hypothesis and keeps its alarm.
type watch struct {
	name string
	off  string // why it does not watch; "" where it does
	*process
	needs        float64 // evidence that raises the alarm
	lower, upper float64 // the limits under the null, where there are such
	alarm        *Alarm
}

// Alarm is the first time that a watch had enough evidence.
type Alarm struct {
	Image    int64   `json:"image"` // images answered until then
	Time     string  `json:"time"`  // of the image or the label, "" where it is not known
	Evidence float64 `json:"evidence"`
}

// The greatest bets, as a share of those at which a factor could become 0, and at all; a trend's
// bet.
const (
	boldest, most = 0.8, 4
	trendBet      = 0.8
)

const everyImageEscalates = "every image escalates, so that the heavy expert answers all"

const noAudit = "no image is audited: give an audit share above 0"

// newAccuracy bets that the cascade loses more than the tolerance.
func newAccuracy(r routing.Router, o Options) *watch {
	w := &watch{name: AccuracyWatch, needs: 1 / o.Level, upper: r.Limit}
	w.process = newProcess(betsBelow(boldest / (1 + w.upper)))
	switch {
	case r.Target != routing.AccuracyTarget:
		w.off = fmt.Sprintf("the router was calibrated for %s, and no accuracy was promised",
			r.Guaranteed())
	case r.Threshold.Threshold == routing.EscalateAll:
		w.off = everyImageEscalates
	case o.Share == 0:
		w.off = noAudit
	}
	return w
}

// newAgreement bets that the cascade's answers differ from the heavy expert's more often than on
// the calibration images. Half of the level is for what these may hide.
func newAgreement(r routing.Router, c *Calibration, o Options) *watch {
	w := &watch{name: AgreementWatch, needs: 2 / o.Level}
	switch {
	case r.Threshold.Threshold == routing.EscalateAll:
		w.off = everyImageEscalates
	case o.Share == 0:
		w.off = noAudit
	case c == nil:
		w.off = "the router does not know how often the experts disagreed on its calibration " +
			"images: give the predictions that calibrated it"
	default:
		w.upper = routing.UpperBound(float64(c.Disagreements), float64(len(c.Priors)), o.Level/2)
	}
	w.process = newProcess(betsBelow(min(boldest/w.upper, most)))
	return w
}

// newEscalation bets that more or fewer images escalate than on the calibration images, or than
// was promised. Half of the level is for what the calibration images may hide.
func newEscalation(r routing.Router, o Options) *watch {
	n, k := float64(r.Ledger.Samples), float64(r.Ledger.Escalated)
	side := o.Level / 4
	w := &watch{
		name: EscalationWatch, needs: 2 / o.Level,
		lower: 1 - routing.UpperBound(n-k, n, side), upper: routing.UpperBound(k, n, side),
	}
	if limit, promised := promisedEscalation(r); promised {
		w.upper = limit
	}
	w.process = newProcess(betsBelow(min(boldest/w.upper, most)),
		betsBelow(min(boldest/(1-w.lower), most)))
	return w
}

// promisedEscalation is the limit of escalation that a router guarantees, if it does.
func promisedEscalation(r routing.Router) (limit float64, promised bool) {
	l := r.Ledger
	switch {
	case r.Verdict != routing.Pass || r.Target == routing.AccuracyTarget:
		return 0, false
	case r.Target == routing.ChargedTarget:
		limit := (r.Limit*l.HeavyCost - l.LightCost) / (l.HeavyCost - l.SharedCost)
		return max(0, min(1, limit)), l.HeavyCost > l.SharedCost
	}
	return r.Limit, true
}

// newPrior bets that the ranks of priors are not uniform: in their mean, and in how far from the
// middle they lie.
func newPrior(c *Calibration, o Options) *watch {
	bets := []float64{1.5, 1, 0.5}
	return &watch{
		name: PriorWatch, needs: 1 / o.Level,
		process: newProcess(bets, bets, bets, bets),
	}
}
