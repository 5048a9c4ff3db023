package routing

import "agflow/core/fault"

// Point is one threshold of a cascade: how much escalates, how often the answer is right, what it costs, and what
// sending the same share on at random would reach.
type Point struct {
	Threshold      float64
	Escalated      int64
	Escalation     float64
	Accuracy       float64
	Charged        float64 // see Ledger
	Uncharged      float64
	RandomAccuracy float64 // (1-e)*light + e*heavy
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
	all := cuts(o.sorted())
	n := float64(len(o.Prior))
	light, heavy := float64(all[0].correct)/n, float64(all[len(all)-1].correct)/n
	var curve []Point
	for _, cut := range thin(all, points) {
		e := float64(cut.escalated) / n
		curve = append(curve, Point{
			Threshold: cut.threshold, Escalated: cut.escalated, Escalation: e, Accuracy: float64(cut.correct) / n,
			Charged: c.charged(e), Uncharged: c.uncharged(e), RandomAccuracy: (1-e)*light + e*heavy,
		})
	}
	return curve, nil
}

// cut is one threshold in whole samples.
type cut struct {
	threshold          float64
	escalated, correct int64
}

// cuts returns one cut at each distinct prior, which escalates the samples below it, and one that escalates all.
func cuts(samples []packed) []cut {
	correct := int64(0)
	for _, s := range samples {
		correct += s.light()
	}
	var all []cut
	for i, s := range samples {
		if i == 0 || s.prior() != samples[i-1].prior() {
			all = append(all, cut{float64(s.prior()), int64(i), correct})
		}
		correct += s.heavy() - s.light()
	}
	return append(all, cut{EscalateAll, int64(len(samples)), correct})
}

// thin keeps, of cuts by ascending escalation, the nearest to each of points evenly spaced escalations, ends included.
func thin(all []cut, points int) []cut {
	if len(all) <= points {
		return all
	}
	last := all[len(all)-1].escalated
	kept := all[:1:1]
	next := 1
	for k := 1; k < points; k++ {
		wanted := float64(last) * float64(k) / float64(points-1)
		for next+1 < len(all) && float64(all[next+1].escalated)-wanted <= wanted-float64(all[next].escalated) {
			next++
		}
		if all[next].escalated != kept[len(kept)-1].escalated {
			kept = append(kept, all[next])
		}
	}
	return kept
}
