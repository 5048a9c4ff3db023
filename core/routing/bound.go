package routing

import "gonum.org/v1/gonum/stat/distuv"

// upperBound is the Clopper-Pearson upper confidence limit at level 1-alpha of the probability behind successes of n
// trials: the quantile 1-alpha of Beta(successes+1, n-successes). It extends to fractional successes.
func upperBound(successes, n, alpha float64) float64 {
	if successes >= n {
		return 1
	}
	return distuv.Beta{Alpha: successes + 1, Beta: n - successes}.Quantile(1 - alpha)
}

// lowerBound is the lower limit: the quantile alpha of Beta(successes, n-successes+1).
func lowerBound(successes, n, alpha float64) float64 {
	if successes <= 0 {
		return 0
	}
	return distuv.Beta{Alpha: successes, Beta: n - successes + 1}.Quantile(alpha)
}

// excessBound is an upper limit at level 1-alpha of P(loss) - P(gain), by the union of two one-sided limits of alpha/2.
func excessBound(losses, gains, n, alpha float64) float64 {
	return upperBound(losses, n, alpha/2) - lowerBound(gains, n, alpha/2)
}
