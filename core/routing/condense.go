package routing

import (
	"math/bits"
	"runtime"
	"slices"
)

// run summarises consecutive samples, by ascending prior: their lowest prior, their number, and
// how many of the light expert's and of the escalated answers are correct.
type run struct {
	prior                     float32
	samples, light, escalated int64
}

func (r *run) add(s sample) {
	r.samples++
	r.light += s.light()
	r.escalated += s.escalated()
}

// bucketBits is the logarithm of the greatest number of buckets: the table of a worker stays in its
// cache.
const bucketBits = 16

// buckets divides the keys into buckets of equal width, from the lowest key on.
type buckets struct {
	lowest uint32
	shift  int
}

func bucketsFor(priors []float32) buckets {
	least, greatest := priors[0], priors[0]
	for _, p := range priors { // twice as fast as slices.Min and Max, which check for NaN
		if p < least {
			least = p
		}
		if p > greatest {
			greatest = p
		}
	}
	lowest := keyOf(least)
	return buckets{lowest, max(0, bits.Len32(keyOf(greatest)-lowest)-bucketBits)}
}

func (b buckets) of(s sample) uint32 { return (s.key() - b.lowest) >> b.shift }

// condensed returns the samples as runs of one prior each in the buckets that hold cuts of a curve
// thinned to the given number of points, and as one run a bucket elsewhere, so that it sorts only
// the samples of the former. It returns false where most samples would be sorted, or where there
// may be fewer priors than points.
func (o Outcomes) condensed(points int) (runs []run, ok bool) {
	buckets := bucketsFor(o.Prior)
	table := o.histogram(buckets)
	exact, wanted, filled := exactBuckets(table, points)
	if filled < points || wanted > len(o.Prior)/2 {
		return nil, false
	}
	samples := radixSort(o.gathered(buckets, exact, wanted))
	for b, whole := range table {
		if whole.samples == 0 {
			continue
		}
		if !exact[b] {
			runs = append(runs, whole)
			continue
		}
		inBucket := samples[:whole.samples]
		samples = samples[whole.samples:]
		runs = slices.AppendSeq(runs, runsOf(inBucket))
	}
	return runs, true
}

// histogram sums the samples of each bucket.
func (o Outcomes) histogram(b buckets) []run {
	workers := runtime.GOMAXPROCS(0)
	tables := make([][]run, workers)
	escalated := o.escalatedCorrect()
	stretches(len(o.Prior), workers, func(w, first, last int) {
		table := make([]run, 1<<bucketBits)
		for i := first; i < last; i++ {
			s := newSample(o.Prior[i], o.LightCorrect[i], o.HeavyCorrect[i], escalated[i])
			table[b.of(s)].add(s)
		}
		tables[w] = table
	})
	for _, table := range tables[1:] {
		for k, r := range table {
			tables[0][k].samples += r.samples
			tables[0][k].light += r.light
			tables[0][k].escalated += r.escalated
		}
	}
	return tables[0]
}

// exactBuckets marks the buckets that [thinned] takes cuts from: for each point, the bucket of the
// last sample to escalate and the next filled one. It also returns how many samples they hold, and
// how many buckets hold any.
func exactBuckets(table []run, points int) (exact []bool, samples, filled int) {
	n := int64(0)
	for _, r := range table {
		n += r.samples
	}
	exact = make([]bool, len(table))
	point, below, next := 0, int64(0), true // the first filled bucket has the first cut
	for b, r := range table {
		if r.samples == 0 {
			continue
		}
		exact[b] = next
		filled++
		below += r.samples
		for next = false; point < points && due(n, point, points) <= float64(below); point++ {
			exact[b], next = true, true
		}
		if exact[b] {
			samples += int(r.samples)
		}
	}
	return exact, samples, filled
}

// gathered packs the samples of the exact buckets, size in number.
func (o Outcomes) gathered(b buckets, exact []bool, size int) []sample {
	workers := runtime.GOMAXPROCS(0)
	parts := make([][]sample, workers)
	escalated := o.escalatedCorrect()
	stretches(len(o.Prior), workers, func(w, first, last int) {
		part := make([]sample, 0, size/workers)
		for i := first; i < last; i++ {
			s := newSample(o.Prior[i], o.LightCorrect[i], o.HeavyCorrect[i], escalated[i])
			if exact[b.of(s)] {
				part = append(part, s)
			}
		}
		parts[w] = part
	})
	return slices.Concat(parts...)
}
