package routing

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// A curve of condensed samples equals that of all samples sorted, for spread and crowded priors,
// with equal priors and without.
func TestCondensedSamplesGiveTheSameCurve(t *testing.T) {
	r := rand.New(rand.NewPCG(71, 72))
	for name, draw := range map[string]func() float64{
		"even":     func() float64 { return r.Float64() },
		"negative": func() float64 { return r.NormFloat64() * math.Exp2(float64(r.IntN(20)-10)) },
		"near one": func() float64 { return 1 - math.Exp(-20*r.Float64()) },
		"equal":    func() float64 { return float64(r.IntN(3000)) / 3000 },
		"one":      func() float64 { return 0.5 },
		"few":      func() float64 { return float64(r.IntN(20)) },
		"crowded": func() float64 {
			return map[bool]float64{
				true: 0.75 + r.Float64()/(1<<20), false: r.Float64(),
			}[r.IntN(50) > 0]
		},
	} {
		condensed := 0
		for range 20 {
			n := 2000 + r.IntN(20_000)
			o := combinedOutcomes(r, n, 2)
			for i := range n {
				o.Prior[i] = float32(draw())
			}
			for _, points := range []int{2, 3, 17, 50} {
				runs, ok := o.condensed(points)
				if !ok {
					continue
				}
				condensed++
				light := count(o.LightCorrect)
				got := thinned(slices.Values(runs), int64(n), light, points)
				want := thinned(runsOf(o.sorted()), int64(n), light, points)
				if !slices.Equal(got, want) {
					t.Fatalf("%s, %d samples, %d points: got\n%v, want\n%v", name, n, points, got,
						want)
				}
			}
		}
		t.Logf("%s: %d of 80 condensed", name, condensed)
		spread := name == "even" || name == "negative" || name == "equal"
		if spread != (condensed == 80) {
			t.Errorf("%s: %d of 80 condensed", name, condensed)
		}
	}
}
