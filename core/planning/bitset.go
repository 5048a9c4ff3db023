package planning

import "math/bits"

// Bitset is a set of indices: index i is bit i%64 of word i/64, the lowest bit first, so that the
// words in little-endian bytes are the bitmap of an Arrow boolean array. Bits past the last index
// are 0.
type Bitset []uint64

func newBitset(indices int) Bitset { return make(Bitset, (indices+63)/64) }

func (s Bitset) add(i int) { s[i/64] |= 1 << (i % 64) }

// Overlap returns the number of indices in both sets and in either. Words that the shorter set
// lacks count as empty.
func Overlap(a, b Bitset) (intersection, union int) {
	if len(a) > len(b) {
		a, b = b, a
	}
	for i, word := range a {
		intersection += bits.OnesCount64(word & b[i])
		union += bits.OnesCount64(word | b[i])
	}
	for _, word := range b[len(a):] {
		union += bits.OnesCount64(word)
	}
	return intersection, union
}
