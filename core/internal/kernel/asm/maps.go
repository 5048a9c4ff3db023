package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// eightChannels addresses eight channels of an image, whose positions lie next to each other, as
// two matrices of four rows each.
type eightChannels [2]matrix

func loadEightChannels(at, stride string) eightChannels {
	lower := loadMatrix(at, stride)
	upper := lower
	upper.at = GP64()
	LEAQ(Mem{Base: lower.at, Index: lower.stride, Scale: 4}, upper.at)
	return eightChannels{lower, upper}
}

// nextFour moves to the next four positions of float32, and asks for as many bytes of later ones: in
// the order of memory, which the processor foresees, and into the second-level cache, which has more
// requests under way than the first.
func (m eightChannels) nextFour(later reg.GPVirtual) {
	for line := 0; line < 128; line += 64 {
		PREFETCHT1(Mem{Base: later, Disp: line})
	}
	ADDQ(U32(128), later)
	for _, four := range m {
		ADDQ(U8(16), four.at)
	}
}

// later returns the address that is the given bytes ahead.
func (m eightChannels) later(bytesAhead string) reg.GPVirtual {
	at := GP64()
	Load(Param(bytesAhead), at)
	ADDQ(m[0].at, at)
	return at
}

// absYGMaps emits sum[c] += |y·g| for eight channels of an image. Products of four positions are
// transposed, so that the chains of four channels grow by one addition a position; two vectors of
// chains hide the latency of the additions. What is missing in the last four positions is read as
// zeros, which change no sum.
func absYGMaps() {
	TEXT("absYGMapsFloat32", NOSPLIT,
		"func(y, gradient *float32, yStride, gradientStride, yAhead, gradientAhead, positions int, "+
			"sum *float64)")
	Pragma("noescape")
	Doc("absYGMapsFloat32 adds |y·gradient| of all positions to the sums of eight channels.",
		"Strides, from channel to channel, are in bytes.",
		"What lies yAhead and gradientAhead bytes ahead is asked for.")
	callers := setMXCSR()
	y, g := loadEightChannels("y", "yStride"), loadEightChannels("gradient", "gradientStride")
	abs, left, sum := absMask(64), GP64(), GP64()
	Load(Param("positions"), left)
	Load(Param("sum"), sum)
	acc := [2]reg.VecVirtual{YMM(), YMM()}
	for k := range acc {
		VMOVUPD(Mem{Base: sum, Disp: 32 * k}, acc[k])
	}
	laterY, laterG := y.later("yAhead"), g.later("gradientAhead")
	SUBQ(U8(4), left)
	JL(LabelRef("fewer"))
	Label("four")
	addPositions(acc, abs, y, g, func(from Mem) reg.VecVirtual {
		value := YMM()
		VCVTPS2PD(from, value)
		return value
	})
	y.nextFour(laterY)
	g.nextFour(laterG)
	SUBQ(U8(4), left)
	JGE(LabelRef("four"))
	Label("fewer")
	ADDQ(U8(4), left)
	JE(LabelRef("done"))
	there := firstLanes(left)
	addPositions(acc, abs, y, g, func(from Mem) reg.VecVirtual {
		narrow, value := XMM(), YMM()
		VMASKMOVPS(from, there, narrow)
		VCVTPS2PD(narrow, value)
		return value
	})
	Label("done")
	for k := range acc {
		VMOVUPD(acc[k], Mem{Base: sum, Disp: 32 * k})
	}
	LDMXCSR(callers)
	VZEROUPPER()
	RET()
}

// addPositions adds four positions of eight channels, which load reads as float64.
func addPositions(
	acc [2]reg.VecVirtual, abs reg.VecVirtual, y, g eightChannels, load func(Mem) reg.VecVirtual,
) {
	for k := range acc {
		var flows [4]reg.VecVirtual
		for c := range flows {
			a, b := load(y[k].row(c, 0)), load(g[k].row(c, 0))
			VMULPD(a, b, b)
			VANDPD(abs, b, b)
			flows[c] = b
		}
		for _, flow := range transposed(flows) {
			VADDPD(flow, acc[k], acc[k])
		}
	}
}

// firstLanes returns the mask of the first count lanes of four.
func firstLanes(count reg.GPVirtual) (mask reg.VecVirtual) {
	lanes := GLOBL("lanes", RODATA|NOPTR)
	for lane := range 4 {
		DATA(4*lane, U32(uint32(lane)))
	}
	mask = XMM()
	VMOVD(count.As32(), mask)
	VPBROADCASTD(mask, mask)
	VPCMPGTD(lanes, mask, mask)
	return mask
}

// transposed exchanges rows and columns of 4 x 4 float64.
func transposed(rows [4]reg.VecVirtual) (columns [4]reg.VecVirtual) {
	var pairs [4]reg.VecVirtual
	for k := range pairs {
		pairs[k] = YMM()
	}
	for k := range 2 {
		VUNPCKLPD(rows[2*k+1], rows[2*k], pairs[2*k])
		VUNPCKHPD(rows[2*k+1], rows[2*k], pairs[2*k+1])
	}
	for k := range columns {
		columns[k] = YMM()
		lanes := U8(0x20) // the lower lanes of both
		if k >= 2 {
			lanes = U8(0x31)
		}
		VPERM2F128(lanes, pairs[2+k%2], pairs[k%2], columns[k])
	}
	return columns
}

// transpose emits the copy of eight channels of an image, whose positions lie next to each other,
// to rows of neighbouring channels.
func transpose() {
	TEXT("transposeFloat32", NOSPLIT,
		"func(from *float32, stride, ahead, positions int, to *float32, rowStride int)")
	Pragma("noescape")
	Doc("transposeFloat32 copies eight channels, stride bytes apart, to rows of eight channels,",
		"rowStride bytes apart, and asks for what lies ahead bytes ahead. positions is a positive",
		"multiple of 4.")
	from, to, rowStride, left := loadEightChannels("from", "stride"), GP64(), GP64(), GP64()
	Load(Param("to"), to)
	Load(Param("rowStride"), rowStride)
	Load(Param("positions"), left)
	later := from.later("ahead")
	Label("positions")
	var channels [4]reg.VecVirtual // channel c in the lower lane, c+4 in the upper
	for c := range channels {
		channels[c] = YMM()
		VMOVUPS(from[0].row(c, 0), channels[c].AsX())
		VINSERTF128(U8(1), from[1].row(c, 0), channels[c], channels[c])
	}
	var pairs [4]reg.VecVirtual
	for k := range pairs {
		pairs[k] = YMM()
	}
	for k := range 2 {
		VUNPCKLPS(channels[2*k+1], channels[2*k], pairs[2*k])
		VUNPCKHPS(channels[2*k+1], channels[2*k], pairs[2*k+1])
	}
	for k := range 2 { // of positions 2k and 2k+1
		first, second := YMM(), YMM()
		VUNPCKLPD(pairs[2+k], pairs[k], first)
		VUNPCKHPD(pairs[2+k], pairs[k], second)
		for _, row := range []reg.VecVirtual{first, second} {
			VMOVUPS(row, Mem{Base: to})
			ADDQ(rowStride, to)
		}
	}
	from.nextFour(later)
	SUBQ(U8(4), left)
	JG(LabelRef("positions"))
	VZEROUPPER()
	RET()
}
