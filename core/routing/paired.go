package routing

import (
	"math"

	"agflow/core/cancel"

	"gonum.org/v1/gonum/mathext"
)

// pairedTest is the exact unconditional test, at level alpha, that
//
//	P(loss) - P(gain) >= margin
//
// from n samples of which some are losses (heavy correct, cascade wrong) and some gains (the
// reverse). Outcomes are ordered by Tango's score (1998, Statistics in Medicine 17, 891-908), and
// the p-value is the greatest probability of an outcome of at most the observed score, over all
// pairs of rates at the margin (Sidik 2003, Statistics in Medicine 22, 265-278). Two
// Clopper-Pearson limits at alpha/2 are valid too, but need two to three times as many samples.
//
// Significance is monotone in the score. So the test keeps the greatest score known to be
// significant and the least known not to be, and narrows this range when a score inside it is
// tested.
type pairedTest struct {
	n, margin, alpha float64
	// standard deviations beyond which a distribution has less than about alpha/10^7
	reach            float64
	rejects, retains float64 // a score that is significant, and one that is not
}

func newPairedTest(n int64, margin, alpha float64) *pairedTest {
	return &pairedTest{
		float64(n), margin, alpha, math.Sqrt(2 * math.Log(1e7/alpha)), -maxScore, maxScore,
	}
}

// maxScore is beyond every score that can be significant: alpha is above 2^-54.
const maxScore = 40

// shown reports whether losses and gains show, at level alpha, that P(loss) - P(gain) is below the
// margin.
func (t *pairedTest) shown(losses, gains float64) bool {
	score := t.score(losses, gains)
	for tries := 0; t.rejects < score && score < t.retains; tries++ {
		at := (t.rejects + t.retains) / 2
		if tries == 16 {
			at = score
		}
		if t.significant(at) {
			t.rejects = at
		} else {
			t.retains = at
		}
	}
	return score <= t.rejects
}

// score is (losses - gains - n·margin) over its standard deviation at the most likely rates that
// have this margin.
func (t *pairedTest) score(losses, gains float64) float64 {
	b := (losses+gains)*(1-t.margin) - 2*t.margin*(t.n-losses)
	c := 8 * t.n * gains * t.margin * (1 - t.margin)
	gainRate := (b + math.Sqrt(b*b+c)) / (4 * t.n)
	if b < 0 { // the same root, without cancellation
		gainRate = 2 * gains * t.margin * (1 - t.margin) / (math.Sqrt(b*b+c) - b)
	}
	return (losses - gains - t.n*t.margin) / math.Sqrt(t.n*(2*gainRate+t.margin*(1-t.margin)))
}

// significant reports whether the p-value of a score is at most alpha.
func (t *pairedTest) significant(score float64) bool {
	return t.pValue(score, 1, t.alpha) <= t.alpha
}

// pValue is the greatest probability of a score of at most this one when P(loss) - P(gain) is the
// margin; where the difference is greater, the probability is less. The search ends at the first
// probability above enough.
//
// The probability changes slowly with the rate of gains: it is evaluated at steps of a 16th of the
// standard deviation of the number of gains, later of a hundredth and a tenth of that number, and
// at smaller steps where nearly every sample is a loss or a gain. A density above 1 evaluates that
// many times as many rates; the tests compare with it.
func (t *pairedTest) pValue(score, density, enough float64) float64 {
	greatest := 0.0
	most := (1 - t.margin) / 2 * t.n
	for gains := 0.0; ; {
		greatest = max(greatest, t.probability(score, gains/t.n))
		if gains >= most || greatest > enough {
			return greatest
		}
		step := max(math.Sqrt(gains+0.1)/16, gains/100)
		if gains > 1e4 {
			step = gains / 10
		}
		neither := (most - gains) * 2
		step = min(step, max(math.Sqrt(neither+0.1)/16, neither/8))
		gains = min(most, gains+step/density)
	}
}

// probability is the probability of a score of at most this one at a rate of gains: the sum, over
// the number of gains, of the probability of that number times the probability of few enough losses
// among the other samples. Both are computed from their neighbours by recurrence.
func (t *pairedTest) probability(score, gainRate float64) float64 {
	mean := t.n * gainRate
	width := t.reach * (math.Sqrt(mean*(1-gainRate)) + 1)
	first, last := math.Floor(max(0, mean-width)), math.Ceil(min(t.n, mean+width))
	lossRate := min(1-1e-12, (gainRate+t.margin)/(1-gainRate)) // among samples that are no gains
	losses := t.mostLosses(score, first)
	weight := binomial(first, t.n, gainRate)
	term, tail := 0.0, 0.0 // P(losses) and P(at most losses) of n-gains samples
	total := 0.0
	for gains := first; ; gains++ {
		cancel.At(int(gains))
		rest := t.n - gains
		if term < 1e-200 && losses >= 0 { // too small to grow by recurrence
			term, tail = binomial(losses, rest, lossRate), binomialTail(losses, rest, lossRate)
		}
		total += weight * tail
		if gains >= last || rest < 1 {
			return total
		}
		weight *= rest / (gains + 1) * gainRate / (1 - gainRate)
		if losses >= 0 && losses < rest { // one sample less
			tail += lossRate * term * (rest - losses) / (rest * (1 - lossRate))
			term *= (rest - losses) / (rest * (1 - lossRate))
		}
		for losses+1 <= rest-1 && t.score(losses+1, gains+1) <= score {
			losses++
			if losses == 0 {
				continue
			}
			term *= (rest - losses) / losses * lossRate / (1 - lossRate)
			tail += term
		}
	}
}

// mostLosses is the greatest number of losses whose score with these gains is at most the one
// given, -1 for none.
func (t *pairedTest) mostLosses(score, gains float64) float64 {
	low, high := -1.0, t.n-gains
	for low < high {
		if middle := math.Ceil((low + high) / 2); t.score(middle, gains) <= score {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}

// bound is an upper limit of P(loss) - P(gain) at level 1-alpha: the smallest margin, to a
// thousandth of it, that the test passes. The search is from 0 to a margin that is known to be
// enough.
func bound(losses, gains float64, n int64, alpha, enough float64) float64 {
	low, high := max(0, (losses-gains)/float64(n)), enough
	for high-low > 1e-3*high && high > 1e-6 {
		middle := (low + high) / 2
		if t := newPairedTest(n, middle, alpha); t.significant(t.score(losses, gains)) {
			high = middle
		} else {
			low = middle
		}
	}
	return high
}

// Difference is accuracy(cascade) - accuracy(heavy) on the same images.
type Difference struct {
	Observed float64  `json:"observed"`
	Interval Interval `json:"interval"`
}

// pairedInterval is Tango's score interval of P(gain) - P(loss) from losses and gains of n samples:
// it holds every difference whose score is at most intervalZ.
func pairedInterval(losses, gains, n float64) Interval {
	observed := (gains - losses) / n
	holds := func(difference float64) bool {
		first, second := losses, gains
		if difference > 0 { // the margin of a test is from 0 on
			first, second = gains, losses
		}
		t := pairedTest{n: n, margin: math.Abs(difference)}
		return !(math.Abs(t.score(first, second)) > intervalZ) // no score: nothing was observed
	}
	end := func(outside float64) float64 {
		within := observed
		for range 50 {
			if middle := (within + outside) / 2; holds(middle) {
				within = middle
			} else {
				outside = middle
			}
		}
		return within
	}
	return Interval{end(-1), end(1)}
}

// binomial is the probability of k successes in n trials, of probability p below 1 each.
func binomial(k, n, p float64) float64 {
	if k == 0 {
		return math.Exp(n * math.Log1p(-p))
	}
	all, _ := math.Lgamma(n + 1)
	successes, _ := math.Lgamma(k + 1)
	failures, _ := math.Lgamma(n - k + 1)
	return math.Exp(all - successes - failures + k*math.Log(p) + (n-k)*math.Log1p(-p))
}

// binomialTail is the probability of at most k successes in n trials.
func binomialTail(k, n, p float64) float64 {
	if k >= n {
		return 1
	}
	return mathext.RegIncBeta(n-k, k+1, 1-p)
}
