package tensor

import "math"

// Dtype is the type of a View's elements.
type Dtype uint8

// The element types.
const (
	Float32Type Dtype = iota
	Float64Type
	Float16Type
	BFloat16Type
)

var dtypeNames = [...]string{"float32", "float64", "float16", "bfloat16"}

// String returns the name that numpy and torch use: "float32", "float64", "float16" or "bfloat16".
func (d Dtype) String() string { return dtypeNames[d] }

// Float16 holds the bits of an IEEE 754 binary16 number.
type Float16 uint16

// BFloat16 holds the bits of a bfloat16 number: the upper half of a float32.
type BFloat16 uint16

// Float32 is exact, subnormal numbers included.
func (h Float16) Float32() float32 {
	sign, rest := uint32(h&0x8000)<<16, uint32(h&0x7fff)<<13
	if rest >= 0x0f800000 { // infinities and NaN keep their mantissa
		return math.Float32frombits(sign | rest | 0x7f800000)
	}
	scaled := math.Float32frombits(rest) * 0x1p112 // the difference of the exponents' biases
	return math.Float32frombits(math.Float32bits(scaled) | sign)
}

// Float32 is exact.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// Element is what a View can hold.
type Element interface {
	float32 | float64 | Float16 | BFloat16
}

func dtypeOf[T Element]() Dtype {
	var zero T
	switch any(zero).(type) {
	case float32:
		return Float32Type
	case float64:
		return Float64Type
	case Float16:
		return Float16Type
	}
	return BFloat16Type
}
