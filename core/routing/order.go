package routing

import (
	"iter"
	"math"
	"slices"
	"sync"
)

// run is the tally of the samples of one prior, or of consecutive priors, of which it has the
// lowest.
type run struct {
	prior float32
	tally
}

// gatherable is the greatest number of samples that are sorted at a time, in 4 bytes each.
var gatherable = 5 << 21

// walks lends the memory of a walk to the next: as garbage it would double the heap.
var walks = sync.Pool{New: func() any { return new(walk) }}

// ascending yields the run of every prior, from the lowest on.
func (o Outcomes) ascending() iter.Seq[run] {
	return o.runs(o.histogram(bucketsFor(o.Prior)), nil, false)
}

// descending yields the run of every prior, from the highest on.
func (o Outcomes) descending() iter.Seq[run] {
	return o.runs(o.histogram(bucketsFor(o.Prior)), nil, true)
}

// runs yields one run for each prior in the exact buckets of a histogram (nil: in all) and one run
// for each other bucket, in order.
//
// The priors lie where they are and are never copied whole. Neighbouring buckets that hold no more
// than the gatherable samples together are gathered in one pass over the priors, each in its place,
// and sorted each by itself; a bucket of more samples is divided further.
func (o Outcomes) runs(h histogram, exact []bool, descending bool) iter.Seq[run] {
	return func(yield func(run) bool) {
		w := walks.Get().(*walk)
		w.o, w.descending, w.yield = o, descending, yield
		w.over(h, exact)
		w.o, w.yield = Outcomes{}, nil
		walks.Put(w)
	}
}

// walk is one pass over the runs.
type walk struct {
	o          Outcomes
	descending bool
	yield      func(run) bool
	list       []uint32   // samples gathered: each its offset in its bucket, then its outcome
	next       [][]uint32 // by worker and bucket, where in the list its next sample goes
	tallies    []tally
}

// over walks over the buckets of a histogram. It reports whether the consumer wants more.
func (w *walk) over(h histogram, exact []bool) bool {
	listed := func(bucket int) int {
		if h.shift == 0 || exact != nil && !exact[bucket] {
			return 0
		}
		return int(h.total[bucket].samples)
	}
	number := len(h.total)
	at := func(k int) int {
		if w.descending {
			return number - 1 - k
		}
		return k
	}
	for k := 0; k < number; {
		size, end := 0, k
		for ; end < number && size+listed(at(end)) <= gatherable; end++ {
			size += listed(at(end))
		}
		if end == k {
			if !w.over(w.o.histogram(h.inside(at(k))), nil) {
				return false
			}
			k++
			continue
		}
		first, last := min(at(k), at(end-1)), max(at(k), at(end-1))
		starts := w.gather(h, first, last, size, listed)
		for ; k < end; k++ {
			if !w.bucket(h, at(k), w.list[starts[at(k)-first]:starts[at(k)-first+1]]) {
				return false
			}
		}
	}
	return true
}

// bucket yields the runs of a bucket: those of the samples that were gathered, or one.
func (w *walk) bucket(h histogram, bucket int, gathered []uint32) bool {
	lowest := h.lowest + uint32(bucket)<<h.shift
	whole := h.total[bucket]
	switch {
	case whole.samples == 0:
		return true
	case len(gathered) == 0:
		return w.yield(run{priorOf(lowest), whole})
	case len(gathered) > 1<<h.shift:
		return w.counted(lowest, 1<<h.shift, gathered)
	}
	return w.sorted(lowest, gathered)
}

// sorted yields the runs of sorted samples.
func (w *walk) sorted(lowest uint32, samples []uint32) bool {
	if w.descending {
		slices.Reverse(samples)
	}
	for i := 0; i < len(samples); {
		offset := samples[i] >> outcomeBits
		r := run{prior: priorOf(lowest + offset)}
		for ; i < len(samples) && samples[i]>>outcomeBits == offset; i++ {
			r.add(outcome(samples[i] & (1<<outcomeBits - 1)))
		}
		if !w.yield(r) {
			return false
		}
	}
	return true
}

// counted yields the runs of samples in any order that are more than the keys of their bucket.
func (w *walk) counted(lowest uint32, keys int, samples []uint32) bool {
	if cap(w.tallies) < keys {
		w.tallies = make([]tally, keys)
	}
	tallies := w.tallies[:keys]
	clear(tallies)
	for _, s := range samples {
		tallies[s>>outcomeBits].add(outcome(s & (1<<outcomeBits - 1)))
	}
	for k := range tallies {
		if w.descending {
			k = keys - 1 - k
		}
		if tallies[k].samples > 0 && !w.yield(run{priorOf(lowest + uint32(k)), tallies[k]}) {
			return false
		}
	}
	return true
}

// gather lists the samples of the buckets from first to last that are to be listed, size in number,
// bucket after bucket, and sorts each bucket that is to be read in order. It returns where each
// begins in the list, and the end of the last.
func (w *walk) gather(
	h histogram, first, last, size int, listed func(bucket int) int,
) (starts []int) {
	starts = make([]int, 1, last-first+2)
	w.next = slices.Grow(w.next[:0], len(h.seen))[:len(h.seen)]
	next := w.next
	for v := range next {
		next[v] = slices.Grow(next[v][:0], len(h.total))[:len(h.total)]
		for bucket := range next[v] {
			next[v][bucket] = nowhere
		}
	}
	for bucket := first; bucket <= last; bucket++ {
		place := starts[bucket-first]
		if listed(bucket) > 0 {
			for v, seen := range h.seen {
				next[v][bucket] = uint32(place)
				place += int(seen[bucket])
			}
		}
		starts = append(starts, place)
	}
	if size == 0 {
		return starts
	}
	if cap(w.list) < size { // at once what the largest part needs
		w.list = make([]uint32, min(gatherable, len(w.o.Prior)))
	}
	w.list = w.list[:size]
	w.o.scatter(h.buckets, next, w.list)
	stretches(size, len(next), func(_, begin, end int) {
		var scratch []uint32
		from, _ := slices.BinarySearch(starts, begin)
		for k := from; k+1 < len(starts) && starts[k] < end; k++ {
			if samples := w.list[starts[k]:starts[k+1]]; len(samples) <= 1<<h.shift {
				scratch = sortSamples(samples, h.shift, scratch)
			}
		}
	})
	return starts
}

// scatter puts every sample whose bucket has a place in the list there.
func (o Outcomes) scatter(b buckets, next [][]uint32, list []uint32) {
	inBucket, flags := uint32(1)<<b.shift-1, o.flags()
	stretches(len(o.Prior), len(next), func(v, first, last int) {
		next := next[v]
		for i, prior := range o.Prior[first:last] {
			offset, in := b.offset(prior)
			if !in {
				continue
			}
			place := &next[offset>>b.shift]
			if *place == nowhere || !flags.keeps(first+i) {
				continue
			}
			list[*place] = offset&inBucket<<outcomeBits | uint32(flags.outcome(first+i))
			*place++
		}
	})
}

// nowhere is the place in the list of samples that are not gathered.
const nowhere = math.MaxUint32

// The radix sort of a bucket orders by at most digitBits bits at a time.
const (
	digitBits = 12
	few       = 64 // samples below which comparing them is faster
)

// sortSamples sorts samples by their offsets of so many bits. It returns the scratch memory it was
// given, or more.
func sortSamples(samples []uint32, bits int, scratch []uint32) []uint32 {
	if len(samples) < few {
		slices.Sort(samples)
		return scratch
	}
	scratch = slices.Grow(scratch[:0], len(samples))
	from, to := samples, scratch[:len(samples)]
	passes := (bits + digitBits - 1) / digitBits
	width := (bits + passes - 1) / passes
	var table [1 << digitBits]uint32
	digits := uint32(1)<<width - 1
	for shift := outcomeBits; shift < outcomeBits+bits; shift += width {
		next := table[:digits+1]
		clear(next)
		for _, s := range from {
			next[s>>shift&digits]++
		}
		place := uint32(0)
		for d, n := range next {
			next[d] = place
			place += n
		}
		for _, s := range from {
			place := &next[s>>shift&digits]
			to[*place] = s
			*place++
		}
		from, to = to, from
	}
	if len(from) > 0 && &from[0] != &samples[0] {
		copy(samples, from)
	}
	return scratch
}

// exactBuckets marks the buckets that [thinned] takes cuts from: for each point, the bucket of the
// last sample to escalate and the next filled one.
func (h histogram) exactBuckets(points int) []bool {
	n := int64(0)
	for _, t := range h.total {
		n += t.samples
	}
	exact := make([]bool, len(h.total))
	point, below, next := 0, int64(0), true // the first filled bucket has the first cut
	for b, t := range h.total {
		if t.samples == 0 {
			continue
		}
		exact[b] = next
		below += t.samples
		for next = false; point < points && due(n, point, points) <= float64(below); point++ {
			exact[b], next = true, true
		}
	}
	return exact
}
