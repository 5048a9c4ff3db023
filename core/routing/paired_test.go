package routing

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"
)

// bySumming is the probability of a score of at most this one, over all outcomes.
func bySumming(t *pairedTest, score, gainRate float64) float64 {
	total, lossRate := 0.0, gainRate+t.margin
	for gains := 0.0; gains <= t.n; gains++ {
		for losses := 0.0; losses+gains <= t.n; losses++ {
			if t.score(losses, gains) > score {
				continue
			}
			p := binomial(gains, t.n, gainRate)
			if gains < t.n {
				p *= binomial(losses, t.n-gains, lossRate/(1-gainRate))
			}
			total += p
		}
	}
	return total
}

func TestProbabilityIsTheSumOverOutcomes(t *testing.T) {
	for _, n := range []int64{1, 5, 30, 150} {
		for _, margin := range []float64{0.005, 0.02, 0.2, 0.6} {
			test := newPairedTest(n, margin, 0.05)
			for _, score := range []float64{-30, -3, -1.9, -1.5, 0, 1} {
				for _, share := range []float64{0, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.99} {
					gainRate := share * (1 - margin) / 2
					got, want := test.probability(score, gainRate), bySumming(test, score, gainRate)
					if math.Abs(got-want) > 1e-8 {
						t.Errorf("n %d, margin %v, score %v, gains %v: got %v, want %v", n, margin,
							score, gainRate, got, want)
					}
				}
			}
		}
	}
}

// The score rises with losses and falls with gains. So the p-value is greatest at the margin
// itself, and few enough losses stay few enough with more gains.
func TestScoreIsMonotone(t *testing.T) {
	for _, margin := range []float64{0.001, 0.02, 0.4} {
		test := newPairedTest(60, margin, 0.05)
		for losses := 0.0; losses < 60; losses++ {
			for gains := 0.0; losses+gains < 60; gains++ {
				here := test.score(losses, gains)
				if more := test.score(losses+1, gains); !(more > here) {
					t.Fatalf("margin %v: score %v at %v, %v, but %v with a loss more", margin, here,
						losses, gains, more)
				}
				if more := test.score(losses, gains+1); !(more < here) {
					t.Fatalf("margin %v: score %v at %v, %v, but %v with a gain more", margin, here,
						losses, gains, more)
				}
			}
		}
	}
}

// Eight times as many rates find no probability that is greater by more than 0.3 %.
func TestRatesAreDenseEnough(t *testing.T) {
	for _, n := range []int64{50, 700, 5000} {
		for _, margin := range []float64{0.002, 0.02, 0.2} {
			test := newPairedTest(n, margin, 0.05)
			for _, score := range []float64{-3, -1.7} {
				coarse, fine := test.pValue(score, 1, 1), test.pValue(score, 8, 1)
				if fine > 1.003*coarse {
					t.Errorf("n %d, margin %v, score %v: %v, but %v at more rates", n, margin,
						score, coarse, fine)
				}
			}
		}
	}
}

// Without losses and gains the test is that of one proportion: (1-margin)^n.
func TestNoLossAndNoGain(t *testing.T) {
	for _, n := range []int64{300, 597, 598, 1000} {
		got, want := newPairedTest(n, 0.005, 0.05).shown(0, 0), math.Pow(0.995, float64(n)) <= 0.05
		if got != want {
			t.Errorf("%d samples: shown is %v", n, got)
		}
	}
}

// A result does not depend on earlier calls.
func TestShownIgnoresEarlierCalls(t *testing.T) {
	kept := newPairedTest(3000, 0.01, 0.05)
	for losses := 60.0; losses >= 0; losses -= 7 {
		for gains := 0.0; gains < 40; gains += 13 {
			fresh := newPairedTest(3000, 0.01, 0.05)
			if want := fresh.significant(fresh.score(losses, gains)); kept.shown(losses,
				gains) != want {
				t.Fatalf("%v losses, %v gains: shown is %v", losses, gains, !want)
			}
		}
	}
}

// The bound is the least margin at which the test passes.
func TestBoundIsTheLeastMargin(t *testing.T) {
	for _, c := range []struct{ losses, gains float64 }{
		{0, 0}, {3, 0}, {30, 20}, {20, 30}, {100, 0},
	} {
		limit := bound(c.losses, c.gains, 1000, 0.05, 1)
		if !newPairedTest(1000, limit, 0.05).shown(c.losses, c.gains) ||
			newPairedTest(1000, 0.99*limit, 0.05).shown(c.losses, c.gains) {
			t.Errorf("%v: the bound is %v", c, limit)
		}
	}
	if limit := bound(10, 100, 1000, 0.05, 1); limit > 1e-5 {
		t.Errorf("a cascade that is better has the bound %v", limit)
	}
}

// needed is the smallest number of samples, to 5 %, for which a test is passed at given rates.
func needed(passes func(n float64) bool) int {
	n := 50.0
	for !passes(n) && n < 1e6 {
		n *= 1.05
	}
	return int(n)
}

// The test needs fewer samples than the other valid tests of the same hypothesis: two
// Clopper-Pearson limits that share alpha; and betting (Waudby-Smith and Ramdas 2024), here a
// mixture of bets, which depends on the counts alone.
func TestFewerSamplesThanOtherBounds(t *testing.T) {
	skipSlow(t)
	const alpha = 0.05
	for _, c := range []struct{ losses, gains, tolerance float64 }{
		{0, 0, 0.005}, {0.001, 0, 0.005}, {0.002, 0.001, 0.005}, {0.006, 0.004, 0.005},
		{0.03, 0.03, 0.005}, {0.02, 0.01, 0.02}, {0.1, 0.1, 0.02},
	} {
		exact := needed(func(n float64) bool {
			n = math.Floor(n)
			return newPairedTest(int64(n), c.tolerance, alpha).shown(c.losses*n, c.gains*n)
		})
		split := needed(func(n float64) bool {
			lower := 0.0
			if c.gains > 0 {
				lower = distuv.Beta{Alpha: c.gains * n, Beta: n - c.gains*n + 1}.Quantile(alpha / 2)
			}
			return UpperBound(c.losses*n, n, alpha/2)-lower <= c.tolerance
		})
		betting := needed(func(n float64) bool {
			const bets = 12
			capital := 0.0
			for k := range bets {
				bet := math.Exp(-0.5*float64(k)) / (1 + c.tolerance)
				capital += math.Exp(n*(c.losses*math.Log1p(bet*(c.tolerance-1))+
					c.gains*math.Log1p(bet*(c.tolerance+1))+
					(1-c.losses-c.gains)*math.Log1p(bet*c.tolerance))) / bets
			}
			return capital >= 1/alpha
		})
		t.Logf("losses %.3f, gains %.3f, tolerance %.3f: exact %d, Clopper-Pearson %d, betting %d",
			c.losses, c.gains, c.tolerance, exact, split, betting)
		if exact > split || exact > betting {
			t.Errorf("%+v: exact %d, Clopper-Pearson %d, betting %d samples", c, exact, split,
				betting)
		}
	}
}
