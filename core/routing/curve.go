package routing

import "agflow/core/fault"

// Point is one threshold of a cascade: how much escalates, how often the answer is right, what it costs, and what
// sending the same share on at random would reach; each with its interval. An escalated sample is right where its
// answer is (see Outcomes).
type Point struct {
	Threshold          float64  `json:"threshold"`
	Escalated          int64    `json:"escalated"`
	Escalation         float64  `json:"escalation"`
	EscalationInterval Interval `json:"escalation_interval"`
	Accuracy           float64  `json:"accuracy"`
	AccuracyInterval   Interval `json:"accuracy_interval"`
	Charged            float64  `json:"charged"` // see Ledger
	ChargedInterval    Interval `json:"charged_interval"`
	Uncharged          float64  `json:"uncharged"`
	UnchargedInterval  Interval `json:"uncharged_interval"`
	RandomAccuracy     float64  `json:"random_accuracy"` // (1-e)*light + e*escalated
	RandomInterval     Interval `json:"random_interval"`
}

// Curve returns the exact points of every threshold that makes a difference, by ascending threshold, thinned to at
// most the given number evenly in escalation. The first point escalates nothing, the last everything.
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
		return nil, fault.New(fault.Value, "%d points were asked for; a curve has at least its 2 ends", points)
	}
	cuts := thinned(o.sorted(), points)
	n := int64(len(o.Prior))
	light, escalated := float64(cuts[0].correct)/float64(n), float64(cuts[len(cuts)-1].correct)/float64(n)
	curve := make([]Point, len(cuts))
	for i, at := range cuts {
		curve[i] = newPoint(at, n, light, escalated, c)
	}
	return curve, nil
}

// Curve returns the curve of the samples under one prior, with the answers of Outcomes and the cost of CostOf.
//
// Errors: those of Outcomes and of the function Curve.
func (s Samples) Curve(prior, answers string, points int) ([]Point, error) {
	o, err := s.Outcomes(prior, answers)
	if err != nil {
		return nil, err
	}
	return Curve(o, s.CostOf(prior), points)
}

// newPoint describes a cut of n samples; light and escalated are the accuracies where none and where all escalate.
func newPoint(at cut, n int64, light, escalated float64, c Cost) Point {
	samples := float64(n)
	e, accuracy := float64(at.escalated)/samples, float64(at.correct)/samples
	random, within := (1-e)*light+e*escalated, wilson(e, samples)
	return Point{
		Threshold: at.threshold, Escalated: at.escalated, Escalation: e, EscalationInterval: within,
		Accuracy: accuracy, AccuracyInterval: wilson(accuracy, samples),
		Charged: c.charged(e), ChargedInterval: within.through(c.charged),
		Uncharged: c.uncharged(e), UnchargedInterval: within.through(c.uncharged),
		RandomAccuracy: random, RandomInterval: wilson(random, samples),
	}
}

// at is the point of one threshold.
func (o Outcomes) at(threshold float64, c Cost) Point {
	here, escalated := cut{threshold: threshold}, o.escalatedCorrect()
	for i, p := range o.Prior {
		right := o.LightCorrect[i]
		if escalates(p, threshold) {
			here.escalated++
			right = escalated[i]
		}
		if right {
			here.correct++
		}
	}
	return newPoint(here, int64(len(o.Prior)), share(o.LightCorrect), share(escalated), c)
}

// cut is one threshold in whole samples: how many are below it, and how many answers are right then.
type cut struct {
	threshold          float64
	escalated, correct int64
}

// walk calls step with the cut at each distinct prior, ascending, which escalates the samples below it, and with the one
// that escalates all.
func walk(samples []sample, step func(cut)) {
	at := cut{}
	for _, s := range samples {
		at.correct += s.light()
	}
	for i := 0; i < len(samples); {
		at.threshold = float64(samples[i].prior())
		step(at)
		for key := samples[i].key(); i < len(samples) && samples[i].key() == key; i++ {
			at.correct += samples[i].escalated() - samples[i].light()
		}
		at.escalated = int64(i)
	}
	at.threshold = EscalateAll
	step(at)
}

// thinned keeps, of all cuts, the nearest to each of points evenly spaced escalations, ends included; all of them where
// they are no more.
func thinned(samples []sample, points int) []cut {
	if distinct(samples) < points {
		points = len(samples) + 1 // every cut is the nearest to its own escalation
	}
	wanted := func(k int) float64 { return float64(len(samples)) * float64(k) / float64(points-1) }
	var kept []cut
	var before cut
	next, due := 0, 0.0
	walk(samples, func(at cut) {
		for ; float64(at.escalated) >= due && next < points; due = wanted(next) {
			nearest := at
			if float64(at.escalated)-due > due-float64(before.escalated) {
				nearest = before
			}
			if len(kept) == 0 || nearest.escalated != kept[len(kept)-1].escalated {
				kept = append(kept, nearest)
			}
			next++
		}
		before = at
	})
	return kept
}

func distinct(samples []sample) int {
	n := 1
	for i := 1; i < len(samples); i++ {
		if samples[i].key() != samples[i-1].key() {
			n++
		}
	}
	return n
}
