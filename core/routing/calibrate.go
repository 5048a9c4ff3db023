package routing

import (
	"math"
	"sort"

	"agflow/core/fault"
)

// The verdicts of a calibration.
const (
	Pass             = "PASS"
	Fail             = "FAIL"
	InsufficientData = "INSUFFICIENT DATA"
)

// The guarantees that a calibration can give, each with a limit.
const (
	AccuracyTarget   = "accuracy"   // accuracy(cascade) >= accuracy(heavy) - limit
	EscalationTarget = "escalation" // escalation <= limit
	ChargedTarget    = "charged"    // charged cost, as a ratio of the heavy expert's, <= limit
)

// Threshold is a calibrated threshold, its guarantee, and its results on the calibration samples.
type Threshold struct {
	// for accuracy EscalateAll, for the others EscalateNone, unless the verdict is Pass
	Threshold  float64 `json:"threshold"`
	Verdict    string  `json:"verdict"`
	Target     string  `json:"target"`
	Limit      float64 `json:"limit"`
	Confidence float64 `json:"confidence"`
	// confidence bound of the limited quantity: at the threshold, or where the test stopped without
	// Pass
	Bound   float64 `json:"bound"`
	Samples int64   `json:"samples"`
	// with InsufficientData, about how many would suffice at the observed rates; else 0
	NeededSamples   int64   `json:"needed_samples"`
	Escalation      float64 `json:"escalation"`
	AccuracyLight   float64 `json:"accuracy_light"`
	AccuracyHeavy   float64 `json:"accuracy_heavy"`
	AccuracyCascade float64 `json:"accuracy_cascade"`
}

// Calibrate finds the lowest threshold for which
//
//	P(accuracy(cascade) >= accuracy(heavy) - tolerance) >= confidence
//
// over the draw of the calibration samples. It tests every float32 as a threshold, from the top,
// where all samples escalate, downwards, and stops at the first that fails; only thresholds at a
// sample's prior change the result. Such fixed-sequence testing needs no correction for the number
// of thresholds. The test of one threshold, on the losses (heavy correct, cascade wrong) and gains
// (the reverse), is exact: see pairedTest. Losses and gains come from the light expert's own
// answers and, where both experts answer escalated samples, from those answers too; then the test
// begins where all samples escalate.
//
// The verdict is Pass when the guarantee holds at a threshold where the light expert answers at
// least one sample alone. Otherwise it is Fail when the observed rates at the failing threshold
// violate the tolerance themselves, or so nearly that maxSamples would not suffice, and
// InsufficientData when only the test fails.
//
// Errors: shape, empty, nonfinite, value (outcomes, tolerance, confidence).
func Calibrate(o Outcomes, tolerance, confidence float64) (found Threshold, err error) {
	if err := o.validate(); err != nil {
		return Threshold{}, err
	}
	if !(tolerance > 0 && tolerance < 1) { // no finite number of samples can show a loss of 0
		return Threshold{}, fault.New(fault.Value,
			"tolerance is %v; it is the accuracy that may be lost, above 0 and below 1, "+
				"such as 0.005",
			tolerance)
	}
	if err := checkConfidence(confidence); err != nil {
		return Threshold{}, err
	}
	n, alpha := o.samples(), 1-confidence
	passed, failed := o.descend(newPairedTest(n, tolerance, alpha))
	found = o.describe(AccuracyTarget, tolerance, confidence)
	if passed.answered > 0 {
		found.Verdict, found.Threshold = Pass, passed.threshold
		found.Bound = bound(float64(passed.losses), float64(passed.gains), n, alpha, tolerance)
		found.Escalation = float64(n-passed.answered) / float64(n)
		found.AccuracyCascade = found.AccuracyHeavy + float64(passed.gains-passed.losses)/float64(n)
		return found, nil
	}
	found.Threshold, found.Escalation, found.AccuracyCascade = EscalateAll, 1, found.AccuracyHeavy
	found.Verdict = Fail
	found.Bound = bound(float64(failed.losses), float64(failed.gains), n, alpha, 1)
	if needed := neededSamples(failed, n, tolerance, alpha); needed > 0 {
		found.Verdict, found.NeededSamples = InsufficientData, needed
	}
	return found, nil
}

func checkConfidence(confidence float64) error {
	if !(confidence > 0 && confidence < 1) {
		return fault.New(fault.Value, "confidence is %v; it must be above 0 and below 1",
			confidence)
	}
	return nil
}

func (o Outcomes) describe(target string, limit, confidence float64) Threshold {
	return Threshold{
		Verdict: Fail, Target: target, Limit: limit, Confidence: confidence,
		Samples:       o.samples(),
		AccuracyLight: o.share(o.LightCorrect), AccuracyHeavy: o.share(o.HeavyCorrect),
	}
}

// answers counts the cascade's answers at a threshold: those that the light expert gives alone, and
// the losses and gains among all, compared with the heavy expert.
type answers struct {
	threshold               float64
	answered, losses, gains int64
}

// descend returns the answers at the lowest threshold that passes the test, and those at the first
// that fails. Where the answers to escalated samples are the heavy expert's own, there are no
// losses or gains above all priors, and no test is needed there.
func (o Outcomes) descend(test *pairedTest) (passed, at answers) {
	if o.combined() {
		at.losses = o.countBut(o.HeavyCorrect, o.EscalatedCorrect)
		at.gains = o.countBut(o.EscalatedCorrect, o.HeavyCorrect)
		if !test.shown(float64(at.losses), float64(at.gains)) {
			return answers{threshold: EscalateAll}, at
		}
	}
	passed.threshold = EscalateAll
	for r := range o.descending() {
		// the guarantee also holds at every threshold down to just above this prior
		if passed.answered > 0 {
			passed.threshold = float64(math.Nextafter32(r.prior, math.MaxFloat32))
		}
		at.answered += r.samples
		at.losses += r.losses
		at.gains += r.losses + r.light - r.escalated
		if !test.shown(float64(at.losses), float64(at.gains)) {
			return passed, at
		}
		passed = at
	}
	passed.threshold = EscalateNone
	return passed, at
}

// maxSamples limits the search of neededSamples.
const maxSamples = 1 << 24

// neededSamples returns about the smallest number of samples, at least n, at which the observed
// rates of losses and gains would pass the test; 0 when no number up to maxSamples would.
func neededSamples(observed answers, n int64, tolerance, alpha float64) int64 {
	if float64(observed.losses-observed.gains) >= tolerance*float64(n) {
		return 0
	}
	passes := func(m int64) bool {
		scale := float64(m) / float64(n)
		t := newPairedTest(m, tolerance, alpha)
		return t.significant(t.score(math.Ceil(float64(observed.losses)*scale),
			math.Floor(float64(observed.gains)*scale)))
	}
	few, enough := n, 2*n
	for !passes(enough) {
		few, enough = enough, 2*enough
		if enough > maxSamples {
			return 0
		}
	}
	step := max(1, few/512)
	return few + step*(1+int64(
		sort.Search(int((enough-few)/step)-1, func(k int) bool {
			return passes(few + step*int64(k+1))
		})))
}
