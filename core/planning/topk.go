package planning

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"

	"agflow/core/fault"
	"agflow/core/internal/kernel"
)

// TopK returns the indices of the k greatest scores; of equal ones (-0 and +0 are equal) the lower
// indices. The result is the same for any number of workers.
//
// A sample brackets the k-th score, one pass separates the scores above the bracket from the few
// inside it, and a radix select finds the rest among those.
//
// Errors: value (k, workers), nonfinite (a NaN, its index named; infinities are ranked).
func TopK(scores []float64, k, workers int) (Bitset, error) {
	if k < 0 || k > len(scores) {
		return nil, fault.New(fault.Value,
			"the top %d of %d scores were asked for; k must be between 0 and their number", k,
			len(scores))
	}
	if workers < 1 {
		return nil, fault.New(fault.Value, "%d workers were asked for; use at least 1", workers)
	}
	top := newBitset(len(scores))
	b := bracketOf(scores, k)
	found := top.split(scores, b, workers)
	// the bracket misses the k-th score
	if found.nan < 0 && (k < found.above || k > found.above+found.inside) {
		b = everything
		found = top.split(scores, b, workers)
	}
	switch k -= found.above; {
	case found.nan >= 0:
		return nil, fault.New(fault.Nonfinite,
			"score %d is NaN, which has no rank; check what the scores were made from", found.nan)
	case b.low == b.high:
		top.addEqual(scores, b.low, k)
	default:
		top.addBest(found.bracketed, k)
	}
	return top, nil
}

// bracket is a range of scores, both ends included, with the share of the scores that is expected
// inside.
type bracket struct{ low, high, share float64 }

var everything = bracket{math.Inf(-1), math.Inf(1), 1}

// bracketOf returns a narrow bracket that very likely holds the k-th greatest score: of a sample
// with one score from each of equal stretches, those four standard deviations of its rank away from
// it. The sample grows with the power 2/3 of the scores, which balances its sorting against the
// work on what is inside (Floyd and Rivest, 1975).
func bracketOf(scores []float64, k int) bracket {
	if len(scores) < 10_000 { // as fast without a sample
		return everything
	}
	sample := make([]float64, int(math.Pow(float64(len(scores)), 2.0/3)/3))
	stretch := len(scores) / len(sample)
	// random positions, so that no period of the scores coincides with the stretches
	generator := rand.New(rand.NewPCG(0, 0))
	for i := range sample {
		sample[i] = scores[i*stretch+generator.IntN(stretch)]
	}
	slices.Sort(sample)
	below := float64(len(scores)-k) / float64(len(scores))
	place := int(below * float64(len(sample)))
	slack := 1 + int(4*math.Sqrt(below*(1-below)*float64(len(sample))))
	b := bracket{math.Inf(-1), math.Inf(1), 2 * float64(slack) / float64(len(sample))}
	if place >= slack {
		b.low = sample[place-slack]
	}
	if place+slack < len(sample) {
		b.high = sample[place+slack]
	}
	return b
}

// found is the result of a pass over scores, beside the set of those above the bracket.
type found struct {
	above, inside int // how many are
	// the ones inside in index order, unless the bracket is a single score
	bracketed []keyedIndex
	nan       int // the index of the first NaN, -1 when there is none
}

// keyedIndex is a score's sort key with the score's index. Keys are ordered as scores are.
type keyedIndex struct {
	key   uint64
	index int
}

func keyOf(score float64) uint64 {
	word := math.Float64bits(score + 0) // -0 + 0 is +0
	return word ^ (uint64(int64(word)>>63) | 1<<63)
}

// minWords is the smallest part of a set that is given to a worker of its own.
const minWords = 64

// split makes s the set of the scores above the bracket. Its words are distributed over workers.
func (s Bitset) split(scores []float64, b bracket, workers int) found {
	words := max((len(s)+workers-1)/workers, minWords)
	parts := make([]found, (len(s)+words-1)/words)
	var running sync.WaitGroup
	for i := range parts {
		running.Go(func() {
			first, last := i*words, min((i+1)*words, len(s))
			part := scores[64*first : min(64*last, len(scores))]
			parts[i] = s[first:last].splitPart(part, 64*first, b)
		})
	}
	running.Wait()
	if len(parts) == 1 { // no copy
		return parts[0]
	}
	all := found{nan: -1}
	for _, p := range parts {
		all.above, all.inside = all.above+p.above, all.inside+p.inside
		all.bracketed = append(all.bracketed, p.bracketed...)
		if all.nan < 0 {
			all.nan = p.nan
		}
	}
	return all
}

// splitPart is split for the scores from index first on. It stops at the first NaN.
func (s Bitset) splitPart(scores []float64, first int, b bracket) found {
	// growing it is slow
	part := found{nan: -1, bracketed: make([]keyedIndex, 0, int(1.1*b.share*float64(len(scores))))}
	for w := range s {
		block, used := blockAt(scores[64*w:])
		above, below := kernel.Compare(block, b.low, b.high)
		s[w] = used & above
		inside := used &^ (above | below)
		part.above += bits.OnesCount64(s[w])
		part.inside += bits.OnesCount64(inside)
		for ; inside != 0; inside &= inside - 1 {
			i := bits.TrailingZeros64(inside)
			if math.IsNaN(block[i]) { // neither above nor below anything
				part.nan = first + 64*w + i
				return part
			}
			if b.low < b.high {
				key := keyedIndex{keyOf(block[i]), first + 64*w + i}
				part.bracketed = append(part.bracketed, key)
			}
		}
	}
	return part
}

// blockAt returns the first 64 scores, padded with zeros when fewer are left, and a bit for each
// that exists.
func blockAt(scores []float64) (block *[64]float64, used uint64) {
	if len(scores) >= 64 {
		return (*[64]float64)(scores), math.MaxUint64
	}
	block = new([64]float64)
	return block, 1<<copy(block[:], scores) - 1
}

// addEqual adds the first k of the scores that equal value.
func (s Bitset) addEqual(scores []float64, value float64, k int) {
	for i := 0; k > 0; i++ {
		if scores[i] == value {
			s.add(i)
			k--
		}
	}
}

// addBest adds the k best of the bracketed scores. Each round sorts them into up to 256 equal
// stretches of key, from the least to the greatest, and continues with the one that holds the k-th.
// It overwrites bracketed.
func (s Bitset) addBest(bracketed []keyedIndex, k int) {
	for k > 0 && k < len(bracketed) {
		least, greatest := uint64(math.MaxUint64), uint64(0)
		for _, c := range bracketed {
			least, greatest = min(least, c.key), max(greatest, c.key)
		}
		if least == greatest {
			break
		}
		shift := max(bits.Len64(greatest-least)-8, 0)
		var counts [256]int
		for _, c := range bracketed {
			counts[(c.key-least)>>shift]++
		}
		digit := uint64(255)
		for ; counts[digit] < k; digit-- {
			k -= counts[digit]
		}
		same := bracketed[:0]
		for _, c := range bracketed {
			switch d := (c.key - least) >> shift; {
			case d > digit:
				s.add(c.index)
			case d == digit:
				same = append(same, c)
			}
		}
		bracketed = same
	}
	for _, c := range bracketed[:k] {
		s.add(c.index)
	}
}
