package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// absYGInFloat32 emits sum[c] += |y·g| of bfloat16, sixteen channels at a time, with half the
// conversions to float64: the product of two is exact in float32, too, where it is neither too
// great nor too small. The CPU's flags report where it is not.
func absYGInFloat32() {
	TEXT("absYGInFloat32", NOSPLIT,
		"func(y, gradient *uint16, yStride, gradientStride, rows, channels int, "+
			"sum *float64) (exact bool)")
	Pragma("noescape")
	Doc("absYGInFloat32 is absYGBFloat16 with products in float32.",
		"Where exact is false, the sum is wrong. Strides are in bytes,",
		"channels a positive multiple of 16.")
	callers := setMXCSR()
	y, g := loadMatrix("y", "yStride"), loadMatrix("gradient", "gradientStride")
	abs, upper := absMask(32), YMM()
	VPSRLD(U8(16), abs, upper)
	VPSLLD(U8(16), upper, upper)
	eachRows(2, func(rows int) {
		sum := GP64()
		Load(Param("sum"), sum)
		eachChannels(rows, 16, 2, func() {
			var acc [4]reg.VecVirtual
			for k := range acc {
				acc[k] = YMM()
				VMOVUPD(Mem{Base: sum, Disp: 32 * k}, acc[k])
			}
			for r := range rows {
				for k, flow := range bfloat16Flows(abs, upper, y.row(r, 0), g.row(r, 0)) {
					VADDPD(flow, acc[k], acc[k])
				}
			}
			for k := range acc {
				VMOVUPD(acc[k], Mem{Base: sum, Disp: 32 * k})
			}
			ADDQ(U8(32), y.at)
			ADDQ(U8(32), g.at)
			ADDQ(U32(128), sum)
		}, y, g)
	}, y, g)
	storeInRange("exact")
	LDMXCSR(callers)
	VZEROUPPER()
	RET()
}

// bfloat16Flows computes |y·g| of sixteen elements of a row, four by four in their order. A
// bfloat16 is the upper half of a float32: of each pair the first is shifted into the upper half,
// and the second, without its sign, is there already.
func bfloat16Flows(abs, upper reg.VecVirtual, y, g Mem) (flows [4]reg.VecVirtual) {
	first, second, gFirst, gSecond := YMM(), YMM(), YMM(), YMM()
	VMOVDQU(y, first)
	VMOVDQU(g, gFirst)
	VPAND(upper, first, second)
	VPAND(upper, gFirst, gSecond)
	VPSLLD(U8(16), first, first)
	VPSLLD(U8(16), gFirst, gFirst)
	VMULPS(first, gFirst, first)
	VMULPS(second, gSecond, second)
	VANDPS(abs, first, first)
	VUNPCKHPS(second, first, gSecond) // 4 to 7 and 12 to 15
	VUNPCKLPS(second, first, gFirst)  // 0 to 3 and 8 to 11
	for k, half := range [2]reg.VecVirtual{gFirst, gSecond} {
		top := XMM()
		VEXTRACTF128(U8(1), half, top)
		flows[k], flows[k+2] = YMM(), YMM()
		VCVTPS2PD(half.AsX(), flows[k])
		VCVTPS2PD(top, flows[k+2])
	}
	return flows
}
