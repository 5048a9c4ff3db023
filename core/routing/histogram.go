package routing

import (
	"math"
	"math/bits"
	"runtime"
	"runtime/debug"
	"sync"

	"agflow/core/cancel"
)

// outcome says of one sample whether the answers of the light expert, of the heavy expert, and of
// the cascade after escalation are correct: one bit each, from the highest.
type outcome uint32

const outcomeBits = 3

// flags are the words of the bits of outcomes, for loops over all samples.
type flags struct{ light, heavy, escalated, kept []uint64 }

func (o Outcomes) flags() *flags {
	f := &flags{
		o.LightCorrect.words, o.HeavyCorrect.words, o.escalatedCorrect().words, o.kept.words,
	}
	// the lengths are equal, which the compiler can't know
	f.heavy, f.escalated = f.heavy[:len(f.light)], f.escalated[:len(f.light)]
	return f
}

func (f *flags) outcome(i int) outcome {
	w, at := uint(i)/64, uint(i)%64
	return outcome(f.light[w]>>at&1<<2 | f.heavy[w]>>at&1<<1 | f.escalated[w]>>at&1)
}

func (f *flags) keeps(i int) bool {
	return f.kept == nil || f.kept[uint(i)/64]>>(uint(i)%64)&1 != 0
}

// tally counts samples, and the light expert's and the escalated answers to them that are correct.
// Losses are the samples that the heavy expert answers correctly and the light one does not, less
// those that the heavy expert answers correctly and the cascade after escalation does not.
type tally struct {
	samples, light, escalated, losses int64
}

func (t *tally) add(one outcome) {
	light, heavy, escalated := int64(one>>2), int64(one>>1&1), int64(one&1)
	t.samples++
	t.light += light
	t.escalated += escalated
	t.losses += heavy&^light - heavy&^escalated
}

// outcomeCounts has the number of samples of each outcome.
type outcomeCounts [1 << outcomeBits]uint32

func (t *tally) join(counts *outcomeCounts) {
	for code, n := range counts {
		var one tally
		one.add(outcome(code))
		t.samples += int64(n)
		t.light += int64(n) * one.light
		t.escalated += int64(n) * one.escalated
		t.losses += int64(n) * one.losses
	}
}

func (c *outcomeCounts) samples() (n uint32) {
	for _, of := range c {
		n += of
	}
	return n
}

// keyOf returns the sort key of a prior: keys are ordered as priors are.
func keyOf(prior float32) uint32 {
	bits := math.Float32bits(prior + 0) // -0 becomes 0
	return bits ^ (uint32(int32(bits)>>31) | 1<<31)
}

// priorOf returns the prior of a key.
func priorOf(key uint32) float32 {
	return math.Float32frombits(key ^ (uint32(int32(^key)>>31) | 1<<31))
}

// buckets divides the keys from lowest to lowest+span into buckets of 1<<shift neighbours.
type buckets struct {
	lowest, span uint32
	shift        int
}

// bucketBits is the logarithm of the greatest number of buckets: the table of a worker stays in its
// cache. Few samples get fewer buckets, but no bucket has more than 1<<(32-outcomeBits) keys.
const bucketBits = 13

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
	number := min(max(outcomeBits, bits.Len(uint(len(priors)))-2), bucketBits)
	span := keyOf(greatest) - lowest
	return buckets{lowest, span, max(0, bits.Len32(span)-number)}
}

// inside divides one bucket.
func (b buckets) inside(bucket int) buckets {
	begin := uint32(bucket) << b.shift
	return buckets{b.lowest + begin, min(1<<b.shift-1, b.span-begin), max(0, b.shift-bucketBits)}
}

func (b buckets) number() int { return int(b.span>>b.shift) + 1 }

// offset returns how far above the lowest key that of a prior is, and whether it is in a bucket.
func (b buckets) offset(prior float32) (offset uint32, in bool) {
	offset = keyOf(prior) - b.lowest
	return offset, offset <= b.span
}

// histogram has the tally of each bucket, and how many samples of each bucket each worker saw in
// its stretch of the samples.
type histogram struct {
	buckets
	total []tally
	seen  [][]uint32
}

func (o Outcomes) histogram(b buckets) histogram {
	workers := workersFor(len(o.Prior))
	h := histogram{b, make([]tally, b.number()), make([][]uint32, workers)}
	tables, flags := make([][]outcomeCounts, workers), o.flags()
	stretches(len(o.Prior), workers, func(w, first, last int) {
		table := make([]outcomeCounts, b.number())
		for i, prior := range o.Prior[first:last] {
			if offset, in := b.offset(prior); in && flags.keeps(first+i) {
				table[offset>>b.shift][flags.outcome(first+i)&(1<<outcomeBits-1)]++
			}
		}
		tables[w] = table
	})
	for w, table := range tables {
		h.seen[w] = make([]uint32, len(table))
		for k := range table {
			h.total[k].join(&table[k])
			h.seen[w][k] = table[k].samples()
		}
	}
	return h
}

// filled returns how many buckets have samples.
func (h histogram) filled() (n int) {
	for _, t := range h.total {
		if t.samples > 0 {
			n++
		}
	}
	return n
}

const (
	parallel = 1 << 16 // samples below which one worker is faster than several
	// maxWorkers bounds the memory of their tables; the memory of the samples is busy before
	maxWorkers = 8
)

func workersFor(samples int) int {
	if samples < parallel {
		return 1
	}
	return min(runtime.GOMAXPROCS(0), maxWorkers)
}

// stretches divides n into one stretch for each worker, runs the workers and waits for all, unless
// the work is cancelled. A panic of a worker is one of the caller: samples may lie in a file that
// is mapped, which can be cut short.
func stretches(n, workers int, work func(worker, first, last int)) {
	cancel.Check()
	var all sync.WaitGroup
	panics := make([]any, workers)
	for w := range workers {
		all.Go(func() {
			defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
			defer func() { panics[w] = recover() }()
			work(w, n*w/workers, n*(w+1)/workers)
		})
	}
	all.Wait()
	for _, cause := range panics {
		if cause != nil {
			panic(cause)
		}
	}
}
