package planning

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// Overlap counts what sets of integers say, whatever the lengths.
func TestOverlapCountsIndices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (Bitset, map[int]bool) {
			n := rapid.IntRange(1, 200).Draw(t, name+" length")
			set, members := newBitset(n), map[int]bool{}
			for _, i := range rapid.SliceOf(rapid.IntRange(0, n-1)).Draw(t, name) {
				set.add(i)
				members[i] = true
			}
			return set, members
		}
		a, inA := draw("a")
		b, inB := draw("b")
		common := 0
		for i := range inA {
			if inB[i] {
				common++
			}
		}
		intersection, union := Overlap(a, b)
		if intersection != common || union != len(inA)+len(inB)-common {
			t.Fatalf("got %d of %d, want %d of %d", intersection, union, common,
				len(inA)+len(inB)-common)
		}
	})
}

// Byte i/8 of the words in little-endian order holds index i in bit i%8, as Arrow's bitmaps do.
func TestWordsAreAnArrowBitmap(t *testing.T) {
	set := newBitset(70)
	for _, i := range []int{0, 9, 63, 69} {
		set.add(i)
	}
	var bitmap []byte
	for _, word := range set {
		bitmap = binary.LittleEndian.AppendUint64(bitmap, word)
	}
	for i := range 8 * len(bitmap) {
		want := i == 0 || i == 9 || i == 63 || i == 69
		if got := bitmap[i/8]>>(i%8)&1 == 1; got != want {
			t.Errorf("bit %d is %v", i, got)
		}
	}
}
