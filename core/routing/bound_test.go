package routing

import (
	"math"
	"testing"
)

// binomialTail returns P(X <= k) of a binomial distribution by summing its terms in logarithms.
func binomialTail(k, n int, p float64) float64 {
	total := 0.0
	for i := 0; i <= k; i++ {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(i + 1))
		c, _ := math.Lgamma(float64(n - i + 1))
		total += math.Exp(a - b - c + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return total
}

// Published and closed-form Clopper-Pearson limits.
func TestKnownLimits(t *testing.T) {
	for name, c := range map[string]struct{ got, want float64 }{
		"0 of 10, upper 97.5 %":   {upperBound(0, 10, 0.025), 0.30849710781876083}, // 1-0.025^(1/10)
		"10 of 10, lower 97.5 %":  {lowerBound(10, 10, 0.025), 0.6915028921812392}, // 0.025^(1/10)
		"10 of 100, upper 97.5 %": {upperBound(10, 100, 0.025), 0.1762226},
		"10 of 100, lower 97.5 %": {lowerBound(10, 100, 0.025), 0.0490047},
		"5 of 10, upper 97.5 %":   {upperBound(5, 10, 0.025), 0.81291397},
		"5 of 10, lower 97.5 %":   {lowerBound(5, 10, 0.025), 0.18708603},
		"0 of 1000, upper 95 %":   {upperBound(0, 1000, 0.05), 1 - math.Pow(0.05, 1.0/1000)},
		"all, upper":              {upperBound(7, 7, 0.05), 1},
		"none, lower":             {lowerBound(0, 7, 0.05), 0},
	} {
		if math.Abs(c.got-c.want) > 5e-8 {
			t.Errorf("%s: got %.10f, want %.10f", name, c.got, c.want)
		}
	}
}

// The limits solve their defining equations: P(X <= k | upper) = alpha and P(X >= k | lower) = alpha.
func TestLimitsSolveTheBinomialTails(t *testing.T) {
	for _, n := range []int{1, 20, 500, 5000} {
		for _, k := range []int{0, 1, 7, n / 10, n / 2, n - 1} {
			if k >= n || k < 0 {
				continue
			}
			for _, alpha := range []float64{0.1, 0.025, 1e-6} {
				if tail := binomialTail(k, n, upperBound(float64(k), float64(n), alpha)); math.Abs(tail-alpha) > 1e-7*alpha+1e-10 {
					t.Errorf("upper limit of %d of %d at %v: tail %v", k, n, alpha, tail)
				}
				if k == 0 {
					continue
				}
				if tail := 1 - binomialTail(k-1, n, lowerBound(float64(k), float64(n), alpha)); math.Abs(tail-alpha) > 1e-7*alpha+1e-10 {
					t.Errorf("lower limit of %d of %d at %v: tail %v", k, n, alpha, tail)
				}
			}
		}
	}
}
