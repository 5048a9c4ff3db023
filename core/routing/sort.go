package routing

import (
	"math"
	"runtime"
	"sync"

	"agflow/core/cancel"
)

// sample is one sample in 35 bits: the sort key of its prior, followed by one bit each for a
// correct answer of the light expert, of the heavy expert, and of the cascade after escalation.
type sample uint64

func newSample(prior float32, light, heavy, escalated bool) sample {
	s := sample(keyOf(prior)) << outcomeBits
	if light {
		s |= 4
	}
	if heavy {
		s |= 2
	}
	if escalated {
		s |= 1
	}
	return s
}

// keyOf returns the sort key of a prior: keys are ordered as priors are.
func keyOf(prior float32) uint32 {
	bits := math.Float32bits(prior + 0) // -0 becomes 0
	return bits ^ (uint32(int32(bits)>>31) | 1<<31)
}

func (s sample) key() uint32 { return uint32(s >> outcomeBits) }

func (s sample) prior() float32 {
	key := s.key()
	return math.Float32frombits(key ^ (uint32(int32(^key)>>31) | 1<<31))
}

func (s sample) light() int64     { return int64(s >> 2 & 1) }
func (s sample) heavy() int64     { return int64(s >> 1 & 1) }
func (s sample) escalated() int64 { return int64(s & 1) }

// One pass of the radix sort orders by digitBits bits; three passes cover the 32 bits of a key.
const (
	outcomeBits = 3
	digitBits   = 11
	digits      = 1 << digitBits
	parallel    = 1 << 16 // samples below which one worker is faster than several
)

// sorted returns the samples by ascending prior.
func (o Outcomes) sorted() []sample {
	escalated := o.escalatedCorrect()
	samples := make([]sample, len(o.Prior))
	stretches(len(samples), workersFor(len(samples)), func(_, first, last int) {
		for i := first; i < last; i++ {
			samples[i] = newSample(o.Prior[i], o.LightCorrect[i], o.HeavyCorrect[i], escalated[i])
		}
	})
	return radixSort(samples)
}

func workersFor(samples int) int {
	if samples < parallel {
		return 1
	}
	return runtime.GOMAXPROCS(0)
}

// radixSort sorts from the lowest digit on. Every worker has a stretch of the samples. The sort
// overwrites its input, and the order does not depend on the number of workers.
func radixSort(from []sample) []sample {
	n, workers := len(from), workersFor(len(from))
	to := make([]sample, n)
	positions := make([][digits]int, workers)
	for shift := outcomeBits; shift < outcomeBits+32; shift += digitBits {
		stretches(n, workers, func(w, first, last int) {
			count := &positions[w]
			clear(count[:])
			for _, s := range from[first:last] {
				count[s>>shift&(digits-1)]++
			}
		})
		if toPositions(positions) {
			continue
		}
		stretches(n, workers, func(w, first, last int) {
			next := &positions[w]
			for _, s := range from[first:last] {
				d := s >> shift & (digits - 1)
				to[next[d]] = s
				next[d]++
			}
		})
		from, to = to, from
	}
	return from
}

// toPositions turns the counts of a digit by worker into the position of each worker's first
// sample. It reports whether all samples have the same digit, and so are in order already.
func toPositions(counts [][digits]int) (equal bool) {
	next, filled := 0, 0
	for d := range digits {
		before := next
		for w := range counts {
			counts[w][d], next = next, next+counts[w][d]
		}
		if next > before {
			filled++
		}
	}
	return filled < 2
}

// stretches divides n into one stretch for each worker, runs the workers and waits for all, unless
// the work is cancelled.
func stretches(n, workers int, work func(worker, first, last int)) {
	cancel.Check()
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() { work(w, n*w/workers, n*(w+1)/workers) })
	}
	all.Wait()
}
