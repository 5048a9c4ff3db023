package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Predicates of VCMPPD that a NaN does not fulfil.
const (
	less    = U8(0x11)
	greater = U8(0x1e)
)

// compare emits block[i] > high and block[i] < low as bit i, four scores at a time.
func compare() {
	TEXT("compare", NOSPLIT, "func(block *[64]float64, low, high float64) (above, below uint64)")
	Pragma("noescape")
	Doc("compare returns which scores of the block are above high and which below low,",
		"as Compare does.")
	block, low, high, above, below := GP64(), YMM(), YMM(), GP64(), GP64()
	Load(Param("block"), block)
	// Load's MOVSD would wait for the last use of the register's upper half
	VBROADCASTSD(NewParamAddr("low", 8), low)
	VBROADCASTSD(NewParamAddr("high", 16), high)
	XORQ(above, above)
	XORQ(below, below)
	for i := 0; i < 64; i += 4 {
		scores := YMM()
		VMOVUPD(Mem{Base: block, Disp: 8 * i}, scores)
		setBits(above, i, scores, high, greater)
		setBits(below, i, scores, low, less)
	}
	Store(above, Return("above"))
	Store(below, Return("below"))
	VZEROUPPER()
	RET()
}

// setBits sets bit i of word, and the next three, where a score fulfils the predicate.
func setBits(word reg.GPVirtual, i int, scores, bound reg.VecVirtual, predicate U8) {
	fulfils, bits := YMM(), GP64()
	VCMPPD(predicate, bound, scores, fulfils)
	VMOVMSKPD(fulfils, bits.As32())
	SHLQ(U8(i), bits)
	ORQ(bits, word)
}
