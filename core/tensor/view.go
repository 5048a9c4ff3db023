// Package tensor defines [View], the borrowed matrix of activations, gradients, weights and logits,
// and its element types.
//
// A View never owns, copies or writes elements: the owner of the memory keeps it alive until the
// call that got the View returns.
package tensor

import (
	"agflow/core/cancel"
	"agflow/core/fault"
)

// View is a borrowed matrix [rows, channels] of float32, float64, float16 or bfloat16. The channels
// of a row lie next to each other, rows may lie further apart. The zero View is empty and of
// float32.
type View struct {
	// []float32, []float64, []Float16 or []BFloat16; nil when there are no rows
	data                   any
	dtype                  Dtype
	rows, channels, stride int
}

// NewView borrows rows that follow each other: data must hold exactly rows*channels elements.
// channels must be at least 1, rows may be 0.
//
// Errors: shape.
func NewView[T Element](data []T, rows, channels int) (View, error) {
	return NewStridedView(data, rows, channels, channels)
}

// NewStridedView borrows rows of which each begins stride elements after the one before: data must
// hold exactly (rows-1)*stride+channels elements, none for no rows.
//
// Errors: shape.
func NewStridedView[T Element](data []T, rows, channels, stride int) (View, error) {
	if rows < 0 || channels < 1 || stride < channels {
		return View{}, fault.New(fault.Shape,
			"a matrix of %d rows and %d channels, %d elements from row to row, was given; "+
				"rows must be at least 0, channels at least 1, and rows must not overlap",
			rows, channels, stride)
	}
	v := View{dtype: dtypeOf[T](), rows: rows, channels: channels, stride: stride}
	if !holds(len(data), rows, channels, stride) {
		return View{}, fault.New(fault.Shape,
			"%d elements were given for a matrix of %d rows and %d channels, "+
				"%d elements from row to row; pass exactly (rows-1)*stride+channels elements, "+
				"none for no rows",
			len(data), rows, channels, stride)
	}
	if rows > 0 {
		v.data = data
	}
	return v, nil
}

// holds reports whether the number of elements fits the matrix, without the product rows*stride,
// which could overflow.
func holds(elements, rows, channels, stride int) bool {
	if rows == 0 {
		return elements == 0
	}
	gaps := elements - channels
	return gaps >= 0 && gaps%stride == 0 && gaps/stride == rows-1
}

// Dtype returns the type of the elements.
func (v View) Dtype() Dtype { return v.dtype }

// Rows returns the number of rows.
func (v View) Rows() int { return v.rows }

// Channels returns the number of channels, the length of a row.
func (v View) Channels() int { return v.channels }

// Stride returns the number of elements from the beginning of a row to that of the next.
func (v View) Stride() int { return v.stride }

// Elements returns the borrowed elements from the first of row 0 to the last of the last row, read
// only; ok is false for a View of another type.
func Elements[T Element](v View) (data []T, ok bool) {
	if v.dtype != dtypeOf[T]() {
		return nil, false
	}
	data, _ = v.data.([]T)
	return data, true
}

// Row converts row i to float64, exactly, and returns it in into, or in a new slice where into is
// too short. Loops over many rows end when their work is cancelled.
func (v View) Row(i int, into []float64) []float64 {
	cancel.At(i)
	if cap(into) < v.channels {
		into = make([]float64, v.channels)
	}
	into = into[:v.channels]
	first, last := i*v.stride, i*v.stride+v.channels
	switch data := v.data.(type) {
	case []float32:
		for c, x := range data[first:last] {
			into[c] = float64(x)
		}
	case []float64:
		copy(into, data[first:last])
	case []Float16:
		for c, x := range data[first:last] {
			into[c] = float64(x.Float32())
		}
	case []BFloat16:
		for c, x := range data[first:last] {
			into[c] = float64(x.Float32())
		}
	}
	return into
}
