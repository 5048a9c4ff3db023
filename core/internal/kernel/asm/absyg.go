package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// absYG emits sum[c] += |y·g|, eight channels at a time.
func absYG(d dtype) {
	TEXT("absYG"+d.name, NOSPLIT,
		"func(y, gradient "+d.pointer+
			", yStride, gradientStride, rows, channels int, sum *float64)")
	Pragma("noescape")
	Doc("absYG"+d.name+" adds |y·gradient| of all rows to sum.",
		"Strides are in bytes, channels a positive multiple of 8.")
	callers := setMXCSR()
	y, g := loadMatrix("y", "yStride"), loadMatrix("gradient", "gradientStride")
	abs := absMask(d.productBits())
	eachRows(d.size, func(rows int) {
		sum := GP64()
		Load(Param("sum"), sum)
		eachChannels(rows, 8, d.size, func() {
			acc := [2]reg.VecVirtual{YMM(), YMM()}
			for k := range acc {
				VMOVUPD(Mem{Base: sum, Disp: 32 * k}, acc[k])
			}
			for r := range rows {
				for k, flow := range d.flows(abs, y, g, r) {
					VADDPD(flow, acc[k], acc[k])
				}
			}
			for k := range acc {
				VMOVUPD(acc[k], Mem{Base: sum, Disp: 32 * k})
			}
			ADDQ(U8(8*d.size), y.at)
			ADDQ(U8(8*d.size), g.at)
			ADDQ(U8(64), sum)
		}, y, g)
	}, y, g)
	LDMXCSR(callers)
	VZEROUPPER()
	RET()
}

// productBits is the precision in which y·g is computed: the product of two float16 is exact in
// float32 as well.
func (d dtype) productBits() int {
	if d == float16s {
		return 32
	}
	return 64
}

// flows computes |y·g| of eight elements of a row.
func (d dtype) flows(abs reg.VecVirtual, y, g matrix, row int) [2]reg.VecVirtual {
	if d.productBits() == 32 {
		return float16Flows(abs, y.row(row, 0), g.row(row, 0))
	}
	a, b := d.float64x8(y, row), d.float64x8(g, row)
	for k := range a {
		VMULPD(b[k], a[k], a[k])
		VANDPD(abs, a[k], a[k])
	}
	return a
}

// float16Flows converts only the products to float64: half the conversions.
func float16Flows(abs reg.VecVirtual, y, g Mem) [2]reg.VecVirtual {
	a, b, upper, low, high := YMM(), YMM(), XMM(), YMM(), YMM()
	VCVTPH2PS(y, a)
	VCVTPH2PS(g, b)
	VMULPS(a, b, b)
	VANDPS(abs, b, b)
	VEXTRACTF128(U8(1), b, upper)
	VCVTPS2PD(b.AsX(), low)
	VCVTPS2PD(upper, high)
	return [2]reg.VecVirtual{low, high}
}

// float64x8 loads eight elements of a row and converts them, exactly.
func (d dtype) float64x8(m matrix, row int) [2]reg.VecVirtual {
	if d != bfloat16s {
		return [2]reg.VecVirtual{d.float64x4(m.row(row, 0)), d.float64x4(m.row(row, 4*d.size))}
	}
	zero, low, high := XMM(), XMM(), XMM()
	values := [2]reg.VecVirtual{YMM(), YMM()}
	VPXOR(zero, zero, zero)
	VPUNPCKLWD(m.row(row, 0), zero, low)
	VPUNPCKHWD(m.row(row, 0), zero, high)
	VCVTPS2PD(low, values[0])
	VCVTPS2PD(high, values[1])
	return values
}
