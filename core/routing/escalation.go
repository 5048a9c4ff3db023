package routing

import (
	"math"
	"sort"

	"agflow/core/fault"
)

// CalibrateEscalation finds, among the thresholds for which
//
//	P(escalation <= limit) >= confidence
//
// over the draw of the calibration samples, the one of the greatest observed accuracy, the lowest
// of equals. Escalation rises with the threshold, so thresholds are tested from the bottom upwards
// until the first failure, each by its Clopper-Pearson limit. The guarantee then holds for all
// thresholds that passed at once, so accuracy may choose among them; the accuracy itself is not
// guaranteed.
//
// The verdict is InsufficientData when no sample may escalate although the limit is above 0; else
// Pass.
//
// Errors: shape, empty, nonfinite, value (outcomes, limit, confidence).
func CalibrateEscalation(o Outcomes, limit, confidence float64) (found Threshold, err error) {
	if err := o.validate(); err != nil {
		return Threshold{}, err
	}
	if !(limit >= 0 && limit <= 1) {
		return Threshold{}, fault.New(fault.Value,
			"an escalation of %v was allowed; it is the share of the images that may escalate, "+
				"from 0 to 1",
			limit)
	}
	if err := checkConfidence(confidence); err != nil {
		return Threshold{}, err
	}
	n, alpha := int(o.samples()), 1-confidence
	most := sort.Search(n+1, func(k int) bool {
		return UpperBound(float64(k), float64(n), alpha) > limit
	}) - 1
	found = o.describe(EscalationTarget, limit, confidence)
	if most < 0 {
		found.Threshold, found.Verdict = EscalateNone, Pass
		found.AccuracyCascade = found.AccuracyLight
		if limit > 0 {
			found.Verdict = InsufficientData
			found.NeededSamples = int64(math.Ceil(math.Log(alpha) / math.Log1p(-limit)))
		}
		return found, nil
	}
	best := cut{correct: -1}
	scan(o.ascending(), o.count(o.LightCorrect), func(at cut) {
		if at.escalated <= int64(most) && at.correct > best.correct {
			best = at
		}
	})
	found.Threshold, found.Verdict = best.threshold, Pass
	found.Bound = UpperBound(float64(best.escalated), float64(n), alpha)
	found.Escalation = float64(best.escalated) / float64(n)
	found.AccuracyCascade = float64(best.correct) / float64(n)
	return found, nil
}

// CalibrateCharged is [CalibrateEscalation] for a limit of the charged cost, as a ratio of the
// heavy expert's: the cost is linear in the escalation.
//
// Errors: budget (the light expert alone costs more), and those of CalibrateEscalation.
func CalibrateCharged(o Outcomes, c Cost, limit, confidence float64) (found Threshold, err error) {
	if err := c.validate(); err != nil {
		return Threshold{}, err
	}
	if !(limit >= c.charged(0)) {
		return Threshold{}, fault.New(fault.Budget,
			"a charged cost of %v can't be kept: the light expert alone costs %.4g of the heavy "+
				"one; allow more, or prune further",
			limit, c.charged(0))
	}
	allowed := 1.0
	if limit < c.charged(1) {
		allowed = (limit - c.charged(0)) / (c.charged(1) - c.charged(0))
	}
	found, err = CalibrateEscalation(o, allowed, confidence)
	found.Target, found.Limit, found.Bound = ChargedTarget, limit, c.charged(found.Bound)
	return found, err
}
