package diagnostics

import (
	"cmp"
	"math"

	"agflow/core/cancel"
	"agflow/core/fault"
)

// Range has the spread of the magnitudes |v| of a signal. A ratio is nil where its denominator is 0
// or it passes the greatest float64.
type Range struct {
	Max           float64  `json:"max"`
	Median        float64  `json:"median"`
	P1            float64  `json:"p1"`
	P99           float64  `json:"p99"`
	MaxOverMedian *float64 `json:"max_over_median"`
	P99OverP1     *float64 `json:"p99_over_p1"`
}

// DynamicRange measures the spread of a signal. Its dynamic range is max/median. arXiv 2603.12354
// reports that the range of the gradient signal falls from 149.4x to 21.4x in converged models,
// "signal compression", without a definition of the ratio. P99OverP1 is reported as well, because
// single outliers do not change it. Percentiles are interpolated linearly between the two nearest
// of the sorted values, as numpy does by default.
//
// Errors: empty (no values), nonfinite (the first index is named).
func DynamicRange(values []float64) (Range, error) {
	if len(values) == 0 {
		return Range{}, fault.New(fault.Empty,
			"no values were given to measure the dynamic range of; give at least one")
	}
	magnitudes := make([]float64, len(values))
	for i, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return Range{}, fault.New(fault.Nonfinite,
				"value %d is %v; a dynamic range needs finite values, "+
					"so check what they were made from",
				i, v)
		}
		magnitudes[i] = math.Abs(v)
	}
	cancel.SortFunc(magnitudes, cmp.Compare[float64])
	r := Range{
		Max: magnitudes[len(magnitudes)-1], Median: percentile(magnitudes, 50),
		P1: percentile(magnitudes, 1), P99: percentile(magnitudes, 99),
	}
	r.MaxOverMedian, r.P99OverP1 = ratio(r.Max, r.Median), ratio(r.P99, r.P1)
	return r, nil
}

// percentile interpolates between the two nearest of sorted values.
func percentile(sorted []float64, p float64) float64 {
	place := p / 100 * float64(len(sorted)-1)
	i := int(place)
	if i == len(sorted)-1 {
		return sorted[i]
	}
	// rounded twice on every machine
	return sorted[i] + float64((place-float64(i))*(sorted[i+1]-sorted[i]))
}

func ratio(numerator, denominator float64) *float64 {
	r := numerator / denominator
	if math.IsNaN(r) || math.IsInf(r, 0) {
		return nil
	}
	return &r
}
