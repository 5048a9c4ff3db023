package routing

import (
	"math"

	"agflow/core/fault"

	"gonum.org/v1/gonum/stat/distuv"
)

// Interval is a 95 % confidence interval of one number; several intervals do not hold jointly.
type Interval [2]float64

const intervalZ = 1.959963984540054 // the quantile 0.975 of the normal distribution

// Wilson is the score interval of a proportion observed in n samples (Wilson 1927); it stays within
// [0, 1].
func Wilson(proportion, n float64) Interval {
	z2 := intervalZ * intervalZ / n
	middle := proportion + z2/2
	half := math.Sqrt(z2 * (proportion*(1-proportion) + z2/4))
	return Interval{max(0, (middle-half)/(1+z2)), min(1, (middle+half)/(1+z2))}
}

// through maps an interval by a linear function.
func (i Interval) through(line func(float64) float64) Interval {
	a, b := line(i[0]), line(i[1])
	return Interval{min(a, b), max(a, b)}
}

// UpperBound is the Clopper-Pearson upper confidence limit at level 1-alpha of the probability
// behind successes of n trials: the quantile 1-alpha of Beta(successes+1, n-successes).
func UpperBound(successes, n, alpha float64) float64 {
	if successes >= n {
		return 1
	}
	return distuv.Beta{Alpha: successes + 1, Beta: n - successes}.Quantile(1 - alpha)
}

// WithIntervals sets the intervals of points of n samples, whose counts are known.
//
// Errors: empty, value (costs).
func WithIntervals(points []Point, n int64, c Cost) error {
	if err := c.validate(); err != nil {
		return err
	}
	if n < 1 {
		return fault.New(fault.Empty, "%d samples were given; intervals need at least 1", n)
	}
	samples := float64(n)
	for i := range points {
		p := &points[i]
		p.EscalationInterval = Wilson(p.Escalation, samples)
		p.AccuracyInterval = Wilson(p.Accuracy, samples)
		p.ChargedInterval = p.EscalationInterval.through(c.charged)
		p.UnchargedInterval = p.EscalationInterval.through(c.uncharged)
		p.RandomInterval = Wilson(p.RandomAccuracy, samples)
	}
	return nil
}
