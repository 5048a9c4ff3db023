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

// Threshold is a calibrated threshold and what it reached on the calibration samples.
type Threshold struct {
	Threshold       float64 `json:"threshold"` // EscalateAll unless the verdict is Pass
	Verdict         string  `json:"verdict"`
	Samples         int64   `json:"samples"`
	NeededSamples   int64   `json:"needed_samples"` // with InsufficientData, how many would do at the rates seen; else 0
	Escalation      float64 `json:"escalation"`
	AccuracyLight   float64 `json:"accuracy_light"`
	AccuracyHeavy   float64 `json:"accuracy_heavy"`
	AccuracyCascade float64 `json:"accuracy_cascade"`
	Bound           float64 `json:"bound"` // on accuracy heavy - cascade: at Threshold, or where the test stopped without Pass
	Tolerance       float64 `json:"tolerance"`
	Confidence      float64 `json:"confidence"`
}

// The grid of thresholds is fixed before any data: 1/(1+exp(-x)) for x = 16, 15.88, … -8, then 0. It is close to 1
// where it matters, and the lowest step is below the priors of 1,000 classes.
const (
	gridTop   = 16.0
	gridStep  = 0.12
	gridSteps = 200
)

func gridThreshold(i int) float64 {
	if i > gridSteps {
		return 0
	}
	return 1 / (1 + math.Exp(gridStep*float64(i)-gridTop))
}

// Calibrate finds the lowest threshold for which
//
//	P(accuracy(cascade) >= accuracy(heavy) - tolerance) >= confidence
//
// over the draw of the calibration samples. It tests a fixed grid of thresholds from the top, where all escalates,
// downwards, and stops at the first that fails: such fixed-sequence testing needs no correction for the number of
// thresholds. The test of one threshold is exact: with losses (heavy right, cascade wrong) and gains (the reverse), the
// Clopper-Pearson upper limit of P(loss) minus the lower limit of P(gain), at (1-confidence)/2 each, must not exceed
// the tolerance.
//
// The verdict is Pass when a threshold holds at which the light expert answers something alone; else Fail when the rates
// seen at the failing threshold break the tolerance themselves, and InsufficientData when only the bound does.
//
// Errors: shape, empty, nonfinite, value (outcomes, tolerance, confidence).
func Calibrate(o Outcomes, tolerance, confidence float64) (Threshold, error) {
	if err := o.validate(); err != nil {
		return Threshold{}, err
	}
	if !(tolerance > 0 && tolerance < 1) { // samples that are finite in number cannot show a loss of 0
		return Threshold{}, fault.New(fault.Value, "tolerance is %v; it is the accuracy that may be lost, above 0 and below 1, such as 0.005", tolerance)
	}
	if !(confidence > 0 && confidence < 1) {
		return Threshold{}, fault.New(fault.Value, "confidence is %v; it must be above 0 and below 1", confidence)
	}
	n := int64(len(o.Prior))
	passed, stopped := descend(o.sorted(), tolerance, 1-confidence)
	t := Threshold{
		Threshold: EscalateAll, Verdict: Fail, Samples: n, Escalation: 1, Bound: stopped.bound,
		AccuracyLight: share(o.LightCorrect), AccuracyHeavy: share(o.HeavyCorrect), AccuracyCascade: share(o.HeavyCorrect),
		Tolerance: tolerance, Confidence: confidence,
	}
	if passed.escalated < n {
		t.Verdict, t.Threshold, t.Bound = Pass, passed.threshold, passed.bound
		t.Escalation = float64(passed.escalated) / float64(n)
		t.AccuracyCascade += float64(passed.gains-passed.losses) / float64(n)
		return t, nil
	}
	if needed := neededSamples(stopped, n, tolerance, 1-confidence); needed > 0 {
		t.Verdict, t.NeededSamples = InsufficientData, needed
	}
	return t, nil
}

// tested is one threshold of the grid on the samples.
type tested struct {
	threshold                float64
	escalated, losses, gains int64
	bound                    float64
}

// descend returns the last threshold of the grid that holds, and the first that does not: the last if all hold.
func descend(samples []packed, tolerance, alpha float64) (passed, at tested) {
	n := int64(len(samples))
	at = tested{threshold: EscalateAll, escalated: n}
	passed = at
	for i := range gridSteps + 2 {
		before := at.escalated
		at.threshold = gridThreshold(i)
		for at.escalated > 0 && !escalates(samples[at.escalated-1].prior(), at.threshold) {
			at.escalated--
			s := samples[at.escalated]
			at.losses += s.heavy() &^ s.light()
			at.gains += s.light() &^ s.heavy()
		}
		if i == 0 || at.escalated < before {
			at.bound = excessBound(float64(at.losses), float64(at.gains), float64(n), alpha)
		}
		if at.bound > tolerance {
			break
		}
		passed = at
	}
	return passed, at
}

// maxSamples bounds the search for a number of samples; the quantiles are accurate up to there.
const maxSamples = 1 << 30

// neededSamples returns the smallest number of samples, at least n, at which the rates of losses and gains seen would
// hold the tolerance; 0 when none up to maxSamples does.
func neededSamples(seen tested, n int64, tolerance, alpha float64) int64 {
	holds := func(m int64) bool {
		scale := float64(m) / float64(n)
		return excessBound(float64(seen.losses)*scale, float64(seen.gains)*scale, float64(m), alpha) <= tolerance
	}
	enough := n
	for !holds(enough) {
		enough *= 2
		if enough > maxSamples {
			return 0
		}
	}
	few := enough / 2
	return few + 1 + int64(sort.Search(int(enough-few-1), func(k int) bool { return holds(few + 1 + int64(k)) }))
}

func share(correct []bool) float64 {
	n := 0
	for _, c := range correct {
		if c {
			n++
		}
	}
	return float64(n) / float64(len(correct))
}
