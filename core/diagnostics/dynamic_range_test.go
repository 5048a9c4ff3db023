package diagnostics

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/fault"
)

// Values and percentiles by hand; the percentiles are numpy's.
func TestDynamicRangeByHand(t *testing.T) {
	for name, c := range map[string]struct {
		values               []float64
		max, median, p1, p99 float64
		maxOverMedian        float64 // 0 stands for nil
		p99OverP1            float64
	}{
		"five":     {[]float64{3, -1, 0, 4, -2}, 4, 2, 0.04, 3.96, 2, 99},
		"four":     {[]float64{1, 2, 4, 9}, 9, 3, 1.03, 8.85, 3, 8.85 / 1.03},
		"one":      {[]float64{-5}, 5, 5, 5, 5, 1, 1},
		"equal":    {[]float64{2, 2, 2}, 2, 2, 2, 2, 1, 1},
		"zeros":    {[]float64{0, 0}, 0, 0, 0, 0, 0, 0},
		"sparse":   {[]float64{0, 0, 0, 0, 100}, 100, 0, 0, 96, 0, 0},
		"overflow": {[]float64{1e-300, 1e-300, 1e300}, 1e300, 1e-300, 1e-300, 0.98e300, 0, 0},
	} {
		r, err := DynamicRange(c.values)
		if err != nil {
			t.Fatal(err)
		}
		for field, got := range map[string][2]float64{
			"max": {r.Max, c.max}, "median": {r.Median, c.median}, "p1": {r.P1, c.p1}, "p99": {
				r.P99, c.p99,
			},
			"max/median": {valueOr0(r.MaxOverMedian), c.maxOverMedian}, "p99/p1": {
				valueOr0(r.P99OverP1), c.p99OverP1,
			},
		} {
			if math.Abs(got[0]-got[1]) > 1e-12*got[1] {
				t.Errorf("%s: %s is %v, want %v", name, field, got[0], got[1])
			}
		}
	}
}

func valueOr0(p *float64) float64 {
	if p == nil {
		return 0
	}
	return *p
}

// The figures are in order, and neither signs nor the order of the values nor their unit change the
// ratios.
func TestDynamicRangeIsARatioOfMagnitudes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-100, 100), 1, 60).Draw(t, "values")
		r, err := DynamicRange(values)
		if err != nil {
			t.Fatal(err)
		}
		if !(0 <= r.P1 && r.P1 <= r.Median && r.Median <= r.P99 && r.P99 <= r.Max) {
			t.Fatalf("out of order: %+v", r)
		}
		other := slices.Clone(values)
		rand.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
		for i := range other {
			other[i] *= -4
		}
		scaled, err := DynamicRange(other)
		if err != nil || valueOr0(scaled.MaxOverMedian) != valueOr0(r.MaxOverMedian) ||
			scaled.Max != 4*r.Max {
			t.Fatalf("%+v became %+v, %v", r, scaled, err)
		}
	})
}

func TestDynamicRangeRefusals(t *testing.T) {
	_, err := DynamicRange(nil)
	requireCode(t, "empty", err, fault.Empty)
	for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
		_, err = DynamicRange([]float64{1, bad})
		requireCode(t, "not finite", err, fault.Nonfinite)
	}
}
