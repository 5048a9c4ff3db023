package routing

// Bits has one bit for each of a number of samples, such as whether an answer is correct: an eighth
// of the memory of as many bools.
type Bits struct {
	words []uint64
	n     int
}

// NewBits returns n bits that are false.
func NewBits(n int) Bits { return Bits{make([]uint64, (n+63)/64), n} }

// BitsOf returns the bits for which a condition of their index holds.
func BitsOf(n int, holds func(i int) bool) Bits {
	b := NewBits(n)
	for w := range b.words {
		for i := 64 * w; i < min(64*w+64, n); i++ {
			b.words[w] |= bit(holds(i)) << (i % 64)
		}
	}
	return b
}

// EqualBits returns where two columns of equal length have equal values.
func EqualBits(x, y []int64) Bits {
	b := NewBits(len(x))
	for w := range b.words {
		var word uint64
		end := min(64*w+64, len(x))
		ys := y[64*w : end]
		for i, v := range x[64*w : end] {
			word |= bit(v == ys[i]) << i
		}
		b.words[w] = word
	}
	return b
}

// given reports whether there are bits at all, if only none of them.
func (b Bits) given() bool { return b.words != nil }

// Len returns the number of bits.
func (b Bits) Len() int { return b.n }

// At returns bit i.
func (b Bits) At(i int) bool { return b.words[i/64]>>(i%64)&1 != 0 }

// Set sets bit i.
func (b Bits) Set(i int, value bool) {
	b.words[i/64] = b.words[i/64]&^(1<<(i%64)) | bit(value)<<(i%64)
}

func bit(value bool) uint64 {
	if value {
		return 1
	}
	return 0
}
