package routing

import (
	"math"
	"runtime"
	"sync"
)

// sample is one sample in 35 bits: its prior as a number that sorts alike, over a bit each for the light expert, the
// heavy expert and the cascade's answer after escalation being right.
type sample uint64

func newSample(prior float32, light, heavy, escalated bool) sample {
	bits := math.Float32bits(prior + 0) // -0 becomes 0
	s := sample(bits^(uint32(int32(bits)>>31)|1<<31)) << outcomeBits
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

func (s sample) key() uint32 { return uint32(s >> outcomeBits) }

func (s sample) prior() float32 {
	key := s.key()
	return math.Float32frombits(key ^ (uint32(int32(^key)>>31) | 1<<31))
}

func (s sample) light() int64     { return int64(s >> 2 & 1) }
func (s sample) heavy() int64     { return int64(s >> 1 & 1) }
func (s sample) escalated() int64 { return int64(s & 1) }

// One pass of the sort orders by so many bits; three take a prior's 32.
const (
	outcomeBits = 3
	digitBits   = 11
	digits      = 1 << digitBits
	parallel    = 1 << 16 // samples below which one worker is faster than several
)

// sorted returns the samples by ascending prior: a radix sort from the lowest digit, in which every worker has a
// stretch of the samples. The order does not depend on the number of workers.
func (o Outcomes) sorted() []sample {
	n := len(o.Prior)
	workers := 1
	if n >= parallel {
		workers = runtime.GOMAXPROCS(0)
	}
	escalated := o.escalatedCorrect()
	from, to := make([]sample, n), make([]sample, n)
	stretches(n, workers, func(_, first, last int) {
		for i := first; i < last; i++ {
			from[i] = newSample(o.Prior[i], o.LightCorrect[i], o.HeavyCorrect[i], escalated[i])
		}
	})
	places := make([][digits]int, workers)
	for shift := outcomeBits; shift < outcomeBits+32; shift += digitBits {
		stretches(n, workers, func(w, first, last int) {
			count := &places[w]
			clear(count[:])
			for _, s := range from[first:last] {
				count[s>>shift&(digits-1)]++
			}
		})
		if place(places) {
			continue
		}
		stretches(n, workers, func(w, first, last int) {
			next := &places[w]
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

// place turns the counts of a digit by worker into the place of each one's first sample; alike tells that all samples
// have the same digit, so that they stand where they belong.
func place(counts [][digits]int) (alike bool) {
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

// stretches gives each worker one stretch of n and waits for all.
func stretches(n, workers int, work func(worker, first, last int)) {
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() { work(w, n*w/workers, n*(w+1)/workers) })
	}
	all.Wait()
}
