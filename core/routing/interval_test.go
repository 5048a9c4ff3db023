package routing

import (
	"math"
	"testing"
)

// Published and closed-form Clopper-Pearson limits.
func TestKnownLimits(t *testing.T) {
	for name, c := range map[string]struct{ got, want float64 }{
		// 1-0.025^(1/10)
		"0 of 10, upper 97.5 %":   {UpperBound(0, 10, 0.025), 0.30849710781876083},
		"10 of 100, upper 97.5 %": {UpperBound(10, 100, 0.025), 0.1762226},
		"5 of 10, upper 97.5 %":   {UpperBound(5, 10, 0.025), 0.81291397},
		"0 of 1000, upper 95 %":   {UpperBound(0, 1000, 0.05), 1 - math.Pow(0.05, 1.0/1000)},
		"all, upper":              {UpperBound(7, 7, 0.05), 1},
	} {
		if math.Abs(c.got-c.want) > 5e-8 {
			t.Errorf("%s: got %.10f, want %.10f", name, c.got, c.want)
		}
	}
}

// The limit solves its defining equation: P(X <= k | limit) = alpha.
func TestLimitSolvesTheBinomialTail(t *testing.T) {
	for _, n := range []float64{1, 20, 500, 5000} {
		for _, k := range []float64{0, 1, 7, math.Floor(n / 10), math.Floor(n / 2), n - 1} {
			if k >= n || k < 0 {
				continue
			}
			for _, alpha := range []float64{0.1, 0.025, 1e-6} {
				limit, tail := UpperBound(k, n, alpha), 0.0
				for i := 0.0; i <= k; i++ {
					tail += binomial(i, n, limit)
				}
				if math.Abs(tail-alpha) > 1e-7*alpha+1e-10 ||
					math.Abs(binomialTail(k, n, limit)-alpha) > 1e-7*alpha+1e-10 {
					t.Errorf("limit of %v of %v at %v: tail %v", k, n, alpha, tail)
				}
			}
		}
	}
}

// Wilson's published example (Newcombe 1998): 81 of 263, and 0 of 20; the ends solve (p-seen)^2 =
// z^2·p·(1-p)/n.
func TestWilson(t *testing.T) {
	for _, c := range []struct{ seen, n, low, high float64 }{
		{81.0 / 263, 263, 0.2553, 0.3662}, {0, 20, 0, 0.1611}, {1, 29, 0.8830, 1},
	} {
		got := Wilson(c.seen, c.n)
		if math.Abs(got[0]-c.low) > 5e-5 || math.Abs(got[1]-c.high) > 5e-5 {
			t.Errorf("%v of %v: got %v", c.seen, c.n, got)
		}
	}
	complement := func(x float64) float64 { return 1 - x }
	if got := (Interval{0.1, 0.3}).through(complement); got != (Interval{0.7, 0.9}) {
		t.Error(got)
	}
}
