package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// or emits the cheapest loop that reads everything: one load and one VPOR for 32 bytes, at four
// addresses at a time.
func or(d dtype) {
	TEXT("or"+d.name, NOSPLIT, "func(data "+d.pointer+", stride, bytes int) (words uint64)")
	Pragma("noescape")
	Doc("or"+d.name+" ors the 8-byte words of four runs of bytes that begin stride bytes apart.",
		"bytes is a positive multiple of 32.")
	data, left := loadMatrix("data", "stride"), GP64()
	Load(Param("bytes"), left)
	var acc [4]reg.VecVirtual
	for k := range acc {
		acc[k] = YMM()
		VPXOR(acc[k], acc[k], acc[k])
	}
	Label("loop")
	for k := range acc {
		VPOR(data.row(k, 0), acc[k], acc[k])
	}
	ADDQ(U8(32), data.at)
	SUBQ(U8(32), left)
	JG(LabelRef("loop"))
	VPOR(acc[1], acc[0], acc[0])
	VPOR(acc[3], acc[2], acc[2])
	VPOR(acc[2], acc[0], acc[0])
	half, quarter, word := XMM(), XMM(), GP64()
	VEXTRACTI128(U8(1), acc[0], half)
	VPOR(acc[0].AsX(), half, half)
	VPSRLDQ(U8(8), half, quarter)
	VPOR(quarter, half, half)
	VMOVQ(half, word)
	Store(word, Return("words"))
	VZEROUPPER()
	RET()
}
