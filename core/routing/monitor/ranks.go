package monitor

import "math"

// ranks counts priors by bins in a Fenwick tree (1994): adding one and counting those below one
// take 13 steps.
//
// The bins are fixed, whatever the priors are, so that ranks of exchangeable priors stay exact.
// They are 1/64 of an octave wide on either side of 0, and below 1 by the distance to 1: softmax
// probabilities crowd there.
type ranks struct {
	tree  [binCount + 1]int64 // node i sums the i & -i bins up to bin i-1
	count [binCount]int64
	total int64
}

const (
	octaves   = 24 // from 2^-24 to 1/2, where float32 ends below 1
	upwards   = 24 // from 1 to 2^24
	perBinade = 64
	inside    = octaves * perBinade // bins of (0, 1/2], and of (1/2, 1]
	outside   = inside + upwards*perBinade
	atZero    = outside // the bin of 0; those of negative numbers lie below it
	binCount  = outside + 1 + 2*inside + upwards*perBinade
)

// binOf is the bin of a prior: greater priors have no lower bin.
func binOf(prior float32) int {
	x := float64(prior)
	switch {
	case x < 0:
		return atZero - 1 - min(magnitude(-x), outside-1)
	case x == 0:
		return atZero
	case x <= 0.5:
		return atZero + 1 + min(magnitude(x), inside-1)
	case x < 1:
		return atZero + 2*inside - min(magnitude(1-x), inside-1)
	}
	return atZero + 2*inside + 1 + min(magnitude(x)-inside, upwards*perBinade-1)
}

// magnitude counts 64ths of octaves from 2^-24 to a positive number, linearly inside each octave.
func magnitude(x float64) int {
	const mantissaBits, shown = 52, 6
	word := math.Float64bits(x)
	exponent := int(word>>mantissaBits) - 1023 + octaves
	if exponent < 0 {
		return 0
	}
	return exponent<<shown | int(word>>(mantissaBits-shown)&(perBinade-1))
}

func (r *ranks) add(bin int) {
	r.count[bin]++
	r.total++
	for i := bin + 1; i <= binCount; i += i & -i {
		r.tree[i]++
	}
}

// below counts the priors in lower bins.
func (r *ranks) below(bin int) (n int64) {
	for i := bin; i > 0; i &= i - 1 {
		n += r.tree[i]
	}
	return n
}

// smoothed is the rank of a further prior among those counted, from 0 to 1, where u, uniform in
// [0, 1), breaks ties with its own bin: ranks of exchangeable priors are independent and uniform
// (Vovk, Gammerman, Shafer 2005).
func (r *ranks) smoothed(bin int, u float64) float64 {
	return (float64(r.below(bin)) + u*float64(r.count[bin]+1)) / float64(r.total+1)
}

// fill counts priors by bin anew.
func (r *ranks) fill(counts map[int]int64) {
	*r = ranks{}
	for bin, n := range counts {
		r.count[bin] = n
		r.total += n
		for i := bin + 1; i <= binCount; i += i & -i {
			r.tree[i] += n
		}
	}
}
