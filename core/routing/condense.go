package routing

import (
	"math/bits"
	"runtime"
	"slices"
)

// run is what samples that follow each other by ascending prior have in common: their lowest prior, how many they are, and
// how many of the light expert's and of the escalated answers are right.
type run struct {
	prior                     float32
	samples, light, escalated int64
}

func (r *run) add(s sample) {
	r.samples++
	r.light += s.light()
	r.escalated += s.escalated()
}

// Samples are condensed in at most so many buckets: the table of a worker stays in its cache.
const bucketBits = 16

// buckets are of equal width in keys, counted from the lowest key.
type buckets struct {
	lowest uint32
	shift  int
}

func bucketsFor(priors []float32) buckets {
	least, greatest := priors[0], priors[0]
	for _, p := range priors { // twice as fast as slices.Min and Max, which look for NaN
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

// condensed returns the samples as runs of one prior each wherever a curve thinned to so many points looks, and as whole
// buckets of priors elsewhere, without sorting what it does not look at. It is not ok where that would spare little, or
// where the priors may be fewer than the points.
func (o Outcomes) condensed(points int) (runs []run, ok bool) {
	places := bucketsFor(o.Prior)
	table := o.histogram(places)
	looked, wanted, filled := lookedAt(table, points)
	if filled < points || wanted > len(o.Prior)/2 {
		return nil, false
	}
	samples := radixSort(o.gathered(places, looked, wanted))
	for b, whole := range table {
		if whole.samples == 0 {
			continue
		}
		if !looked[b] {
			runs = append(runs, whole)
			continue
		}
		of := samples[:whole.samples]
		samples = samples[whole.samples:]
		runs = slices.AppendSeq(runs, runsOf(of))
	}
	return runs, true
}

// histogram sums the samples of each bucket.
func (o Outcomes) histogram(places buckets) []run {
	workers := runtime.GOMAXPROCS(0)
	tables := make([][]run, workers)
	escalated := o.escalatedCorrect()
	stretches(len(o.Prior), workers, func(w, first, last int) {
		table := make([]run, 1<<bucketBits)
		for i := first; i < last; i++ {
			s := newSample(o.Prior[i], o.LightCorrect[i], o.HeavyCorrect[i], escalated[i])
			table[places.of(s)].add(s)
		}
		tables[w] = table
	})
	for _, table := range tables[1:] {
		for b, r := range table {
			tables[0][b].samples += r.samples
			tables[0][b].light += r.light
			tables[0][b].escalated += r.escalated
		}
	}
	return tables[0]
}

// lookedAt marks the buckets that [thinned] takes cuts from: for each point, that of the last sample to escalate and the next
// one; and says how many samples they hold, and how many buckets hold any.
func lookedAt(table []run, points int) (looked []bool, samples, filled int) {
	n := int64(0)
	for _, r := range table {
		n += r.samples
	}
	looked = make([]bool, len(table))
	next, below, look := 0, int64(0), true // the first one has the first cut
	for b, r := range table {
		if r.samples == 0 {
			continue
		}
		looked[b] = look
		filled++
		below += r.samples
		for look = false; next < points && due(n, next, points) <= float64(below); next++ {
			looked[b], look = true, true
		}
		if looked[b] {
			samples += int(r.samples)
		}
	}
	return looked, samples, filled
}

// gathered packs the samples of the buckets that are looked at, which hold so many.
func (o Outcomes) gathered(places buckets, looked []bool, size int) []sample {
	workers := runtime.GOMAXPROCS(0)
	parts := make([][]sample, workers)
	escalated := o.escalatedCorrect()
	stretches(len(o.Prior), workers, func(w, first, last int) {
		part := make([]sample, 0, size/workers)
		for i := first; i < last; i++ {
			if s := newSample(o.Prior[i], o.LightCorrect[i], o.HeavyCorrect[i], escalated[i]); looked[places.of(s)] {
				part = append(part, s)
			}
		}
		parts[w] = part
	})
	return slices.Concat(parts...)
}
