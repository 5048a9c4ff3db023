// Package tensor has the borrowed matrix that activations, gradients, weights and logits come in.
//
// It never owns, copies or writes elements: who made the memory keeps it alive until the call that got the View returns.
package tensor

import "agflow/core/fault"

// View is a borrowed row-major float32 matrix [rows, channels]. The zero View is empty.
type View struct {
	data           []float32
	rows, channels int
}

// NewView borrows data, which must hold exactly rows*channels elements; channels must be at least 1, rows may be 0.
func NewView(data []float32, rows, channels int) (View, error) {
	if rows < 0 || channels < 1 {
		return View{}, fault.New(fault.Shape, "a matrix of %d rows and %d channels was given; rows must be at least 0 and channels at least 1", rows, channels)
	}
	// The quotient instead of the product, which could overflow.
	if len(data)/channels != rows || len(data)%channels != 0 {
		return View{}, fault.New(fault.Shape, "%d elements were given for a matrix of %d rows and %d channels; pass exactly rows*channels elements", len(data), rows, channels)
	}
	return View{data, rows, channels}, nil
}

// Rows returns the number of rows.
func (v View) Rows() int { return v.rows }

// Channels returns the number of channels, the length of a row.
func (v View) Channels() int { return v.channels }

// Data returns all elements, row by row; read only.
func (v View) Data() []float32 { return v.data }

// Row returns row i; read only.
func (v View) Row(i int) []float32 {
	return v.data[i*v.channels : (i+1)*v.channels : (i+1)*v.channels]
}
