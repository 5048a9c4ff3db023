package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// matrix addresses four equally spaced rows with three registers: the first row's address, the
// stride and its triple.
type matrix struct{ at, stride, stride3 reg.GPVirtual }

func loadMatrix(at, stride string) matrix {
	m := matrix{at: GP64(), stride: GP64(), stride3: GP64()}
	Load(Param(at), m.at)
	Load(Param(stride), m.stride)
	LEAQ(Mem{Base: m.stride, Index: m.stride, Scale: 2}, m.stride3)
	return m
}

// row is the operand disp bytes after the address in row 0 to 3.
func (m matrix) row(r, disp int) Mem {
	switch r {
	case 1:
		return Mem{Base: m.at, Index: m.stride, Scale: 1, Disp: disp}
	case 2:
		return Mem{Base: m.at, Index: m.stride, Scale: 2, Disp: disp}
	case 3:
		return Mem{Base: m.at, Index: m.stride3, Scale: 1, Disp: disp}
	}
	return Mem{Base: m.at, Disp: disp}
}

// nextRows moves the address from the end of the channels to their beginning, the given number of
// rows further down.
func (m matrix) nextRows(rows, size int) {
	width := GP64()
	Load(Param("channels"), width)
	IMUL3Q(U8(uint8(size)), width, width)
	SUBQ(width, m.at)
	LEAQ(Mem{Base: m.at, Index: m.stride, Scale: uint8(rows)}, m.at)
}

// eachRows emits, with strides in bytes,
//
//	for rows >= 4 { pass(4) }
//	for rows > 0 { pass(1) }
//
// and moves the addresses of m down after each pass, which must leave them at the end of the
// channels.
func eachRows(size int, pass func(rows int), m ...matrix) {
	left := GP64()
	Load(Param("rows"), left)
	for _, rows := range []int{4, 1} {
		loop, end := [5]string{4: "four", 1: "one"}[rows], [5]string{4: "fewer", 1: "done"}[rows]
		Label(loop)
		CMPQ(left, U8(uint8(rows)))
		JL(LabelRef(end))
		pass(rows)
		for _, matrix := range m {
			matrix.nextRows(rows, size)
		}
		SUBQ(U8(uint8(rows)), left)
		JMP(LabelRef(loop))
		Label(end)
	}
}

// eachChannels emits the loop over all channels, step at a time.
func eachChannels(rows, step int, body func()) {
	label := [5]string{4: "channels_of_four", 1: "channels_of_one"}[rows]
	left := GP64()
	Load(Param("channels"), left)
	Label(label)
	body()
	SUBQ(U8(uint8(step)), left)
	JG(LabelRef(label))
}

// float64x4 loads four elements and converts them, exactly.
func (d dtype) float64x4(from Mem) reg.VecVirtual {
	value := YMM()
	switch d {
	case float32s:
		VCVTPS2PD(from, value)
	case float64s:
		VMOVUPD(from, value)
	case float16s:
		narrow := XMM()
		VCVTPH2PS(from, narrow)
		VCVTPS2PD(narrow, value)
	case bfloat16s: // the upper half of a float32: interleaved with zeros below
		narrow, zero := XMM(), XMM()
		VMOVQ(from, narrow)
		VPXOR(zero, zero, zero)
		VPUNPCKLWD(narrow, zero, narrow)
		VCVTPS2PD(narrow, value)
	}
	return value
}

// absMask clears the sign of float32 or float64.
func absMask(bits int) reg.VecVirtual {
	mask := YMM()
	VPCMPEQD(mask, mask, mask)
	if bits == 32 {
		VPSRLD(U8(1), mask, mask)
	} else {
		VPSRLQ(U8(1), mask, mask)
	}
	return mask
}
