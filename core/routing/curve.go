package routing

import (
	"iter"

	"agflow/core/fault"
)

// Point has the results of a cascade at one threshold: the share that escalates, the accuracy, the
// cost, and the accuracy of escalating the same share at random, each with its interval. The answer
// to an escalated sample is that of Outcomes.
type Point struct {
	Threshold          float64  `json:"threshold"`
	Escalated          int64    `json:"escalated"`
	Escalation         float64  `json:"escalation"`
	EscalationInterval Interval `json:"escalation_interval"`
	Accuracy           float64  `json:"accuracy"`
	AccuracyInterval   Interval `json:"accuracy_interval"`
	Charged            float64  `json:"charged"` // expected cost per image, as in Ledger
	ChargedInterval    Interval `json:"charged_interval"`
	Uncharged          float64  `json:"uncharged"`
	UnchargedInterval  Interval `json:"uncharged_interval"`
	RandomAccuracy     float64  `json:"random_accuracy"` // (1-e)*light + e*escalated
	RandomInterval     Interval `json:"random_interval"`
}

// Curve returns the exact points of all thresholds with different results, by ascending threshold,
// thinned to at most the given number, evenly in escalation. The first point escalates nothing, the
// last everything.
//
// Errors: shape, empty, nonfinite, value (outcomes, costs, fewer than 2 points).
func Curve(o Outcomes, c Cost, points int) ([]Point, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	if points < 2 {
		return nil, fault.New(fault.Value,
			"%d points were asked for; a curve has at least its 2 ends", points)
	}
	cuts := o.cuts(points)
	n := o.samples()
	light := float64(cuts[0].correct) / float64(n)
	escalated := float64(cuts[len(cuts)-1].correct) / float64(n)
	curve := make([]Point, len(cuts))
	for i, at := range cuts {
		curve[i] = newPoint(at, n, light, escalated, c)
	}
	return curve, nil
}

// Curve returns the curve of the samples under one prior, with the answers of Outcomes and the cost
// of CostOf.
//
// Errors: those of Outcomes and of the function Curve.
func (s Samples) Curve(prior, answers string, points int) ([]Point, error) {
	o, err := s.Outcomes(prior, answers)
	if err != nil {
		return nil, err
	}
	return Curve(o, s.CostOf(prior), points)
}

// newPoint returns the point of a cut of n samples; light and escalated are the accuracies where
// none and where all escalate.
func newPoint(at cut, n int64, light, escalated float64, c Cost) Point {
	samples := float64(n)
	e, accuracy := float64(at.escalated)/samples, float64(at.correct)/samples
	random, within := (1-e)*light+e*escalated, Wilson(e, samples)
	return Point{
		Threshold: at.threshold, Escalated: at.escalated, Escalation: e, EscalationInterval: within,
		Accuracy: accuracy, AccuracyInterval: Wilson(accuracy, samples),
		Charged: c.charged(e), ChargedInterval: within.through(c.charged),
		Uncharged: c.uncharged(e), UnchargedInterval: within.through(c.uncharged),
		RandomAccuracy: random, RandomInterval: Wilson(random, samples),
	}
}

// at returns the point of one threshold, and the losses and gains of the cascade, compared with the
// heavy expert alone.
func (o Outcomes) at(threshold float64, c Cost) (point Point, lost, gained int64) {
	here, flags := cut{threshold: threshold}, o.flags()
	for i, prior := range o.Prior {
		if !flags.keeps(i) {
			continue
		}
		one := flags.outcome(i)
		right, heavy := int64(one>>2), int64(one>>1&1)
		if escalates(prior, threshold) {
			right = int64(one & 1)
			here.escalated++
		}
		here.correct += right
		lost += heavy &^ right
		gained += right &^ heavy
	}
	point = newPoint(here, o.samples(), o.share(o.LightCorrect), o.share(o.escalatedCorrect()), c)
	return point, lost, gained
}

// cut has the counts of one threshold: how many samples are below it, and how many answers are
// correct.
type cut struct {
	threshold          float64
	escalated, correct int64
}

// scan calls step with the cut at each run, which escalates the samples below it, and with the cut
// that escalates all. light is the number of the light expert's correct answers.
func scan(runs iter.Seq[run], light int64, step func(cut)) {
	at := cut{correct: light}
	for r := range runs {
		at.threshold = float64(r.prior)
		step(at)
		at.escalated += r.samples
		at.correct += r.escalated - r.light
	}
	at.threshold = EscalateAll
	step(at)
}

// cuts returns all cuts, thinned to at most the given number. Where enough buckets hold samples,
// only
// those are sorted that the cuts of the points fall into.
func (o Outcomes) cuts(points int) []cut {
	n, light := o.samples(), o.count(o.LightCorrect)
	h := o.histogram(bucketsFor(o.Prior))
	if h.filled() >= points {
		return thinned(o.runs(h, h.exactBuckets(points), false), n, light, points)
	}
	runs := o.runs(h, nil, false)
	if fewer(runs, points) {
		points = int(n) + 1 // the cuts of all thresholds
	}
	return thinned(runs, n, light, points)
}

// fewer reports whether there are fewer runs than a number.
func fewer(runs iter.Seq[run], than int) bool {
	for range runs {
		if than--; than <= 0 {
			return false
		}
	}
	return true
}

// due is the number of n samples that escalate at point k of evenly spaced points.
func due(n int64, k, points int) float64 { return float64(n) * float64(k) / float64(points-1) }

// thinned keeps, of the cuts of n samples, the nearest to each of points evenly spaced escalations,
// ends included; all cuts where there are no more than points.
func thinned(runs iter.Seq[run], n, light int64, points int) []cut {
	var kept []cut
	var before cut
	next := 0
	scan(runs, light, func(at cut) {
		for ; next < points && float64(at.escalated) >= due(n, next, points); next++ {
			wanted := due(n, next, points)
			nearest := at
			if float64(at.escalated)-wanted > wanted-float64(before.escalated) {
				nearest = before
			}
			if len(kept) == 0 || nearest.escalated != kept[len(kept)-1].escalated {
				kept = append(kept, nearest)
			}
		}
		before = at
	})
	return kept
}
