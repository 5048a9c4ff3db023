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

// pageBytes is the size of a page of memory. The processor foresees one run of reads a page.
const pageBytes = 4096

// jumpIfNear jumps where whole rows follow each other and several lie on a page: what follows is
// best asked for in the order of memory.
func jumpIfNear(size int, m ...matrix) {
	const far = "far_for_near"
	width := GP64()
	Load(Param("channels"), width)
	IMUL3Q(U8(uint8(size)), width, width)
	CMPQ(width, U32(pageBytes))
	JGE(LabelRef(far))
	for _, matrix := range m {
		CMPQ(matrix.stride, width)
		JNE(LabelRef(far))
	}
	JMP(LabelRef("near"))
	Label(far)
}

// eachChannels emits the loop over all channels, step at a time. For four rows at a time it asks
// for the four that follow.
func eachChannels(rows, step, size int, body func(), m ...matrix) {
	if rows < 4 {
		channelLoop("channels_of_one", step, body)
		return
	}
	jumpIfNear(size, m...)
	rowByRow(rows, step, size, body, m...)
	JMP(LabelRef("end_of_channels"))
	Label("near")
	inOrder(rows, step, size, body, m...)
	Label("end_of_channels")
}

// rowByRow emits the loop that asks for the same channels of the rows that follow.
func rowByRow(rows, step, size int, body func(), m ...matrix) {
	next := following(m)
	channelLoop("channels_of_four", step, func() {
		for _, matrix := range next {
			for r := range rows {
				PREFETCHT1(matrix.row(r, 0))
			}
			ADDQ(U8(uint8(step*size)), matrix.at)
		}
		body()
	})
}

// inOrder emits the loop that asks for the rows that follow in the order of memory.
func inOrder(rows, step, size int, body func(), m ...matrix) {
	next := following(m)
	channelLoop("channels_of_near", step, func() {
		bytes := rows * step * size
		for _, matrix := range next {
			for line := 0; line < bytes; line += 64 {
				PREFETCHT1(Mem{Base: matrix.at, Disp: line})
			}
			ADDQ(U32(uint32(bytes)), matrix.at)
		}
		body()
	})
}

// following returns the four rows after those of m.
func following(m []matrix) (next []matrix) {
	for _, matrix := range m {
		at := GP64()
		LEAQ(Mem{Base: matrix.at, Index: matrix.stride, Scale: 4}, at)
		matrix.at = at
		next = append(next, matrix)
	}
	return next
}

func channelLoop(label string, step int, body func()) {
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
