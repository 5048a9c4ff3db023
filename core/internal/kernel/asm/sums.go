package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// sums emits all eight sums, four channels at a time, in the order of kernel.Sums:
// Σ|y·g|, Σ y·g, Σ (y·g)², Σ|y|, Σ y, Σ y², Σ g², max |y·g|.
func sums(d dtype) {
	TEXT("sums"+d.name, NOSPLIT,
		"func(y, gradient "+d.pointer+
			", yStride, gradientStride, rows, channels int, sums *float64, pitch int)")
	Pragma("noescape")
	Doc("sums"+d.name+" adds all rows to eight columns that begin pitch bytes apart.",
		"Strides are in bytes, channels a positive multiple of 4.")
	callers := setMXCSR()
	y, g := loadMatrix("y", "yStride"), loadMatrix("gradient", "gradientStride")
	columns := loadMatrix("sums", "pitch") // the first four; the others are four pitches further
	abs := absMask(64)
	eachRows(d.size, func(rows int) {
		lower, upper := columns, columns
		Load(Param("sums"), lower.at)
		upper.at = GP64()
		LEAQ(Mem{Base: lower.at, Index: lower.stride, Scale: 4}, upper.at)
		column := func(k int) Mem {
			if k < 4 {
				return lower.row(k, 0)
			}
			return upper.row(k-4, 0)
		}
		eachChannels(rows, 4, d.size, func() {
			var acc [8]reg.VecVirtual
			for k := range acc {
				acc[k] = YMM()
				VMOVUPD(column(k), acc[k])
			}
			for r := range rows {
				addTo(acc, d, abs, d.float64x4(y.row(r, 0)), d.float64x4(g.row(r, 0)))
			}
			for k := range acc {
				VMOVUPD(acc[k], column(k))
			}
			ADDQ(U8(4*d.size), y.at)
			ADDQ(U8(4*d.size), g.at)
			ADDQ(U8(32), lower.at)
			ADDQ(U8(32), upper.at)
		}, y, g)
	}, y, g)
	LDMXCSR(callers)
	VZEROUPPER()
	RET()
}

// addTo adds four channels of a row. Where products are exact in float64 it fuses multiplication
// and addition, which keeps the bits: products of two elements unless they are float64, and of
// 16-bit elements the square of such a product too. The maximum's operands are ordered so that a
// NaN leaves it unchanged, as in Go's "if q > m".
func addTo(acc [8]reg.VecVirtual, d dtype, abs, y, g reg.VecVirtual) {
	product, absolute := YMM(), YMM()
	VMULPD(y, g, product)
	addSquare(d.size < 8, g, acc[6])
	if d.size < 8 {
		VFMADD231PD(y, g, acc[1]) // the adders have more work than the multipliers
	} else {
		VADDPD(product, acc[1], acc[1])
	}
	VANDPD(abs, product, absolute)
	VADDPD(absolute, acc[0], acc[0])
	VMAXPD(acc[7], absolute, acc[7])
	addSquare(d.size < 4, product, acc[2])
	VADDPD(y, acc[4], acc[4])
	VANDPD(abs, y, absolute)
	VADDPD(absolute, acc[3], acc[3])
	addSquare(d.size < 8, y, acc[5])
}

func addSquare(exact bool, value, acc reg.VecVirtual) {
	if exact {
		VFMADD231PD(value, value, acc)
		return
	}
	square := YMM()
	VMULPD(value, value, square)
	VADDPD(square, acc, acc)
}
