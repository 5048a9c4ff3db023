package kernel

import "agflow/core/tensor"

// matrix is the typed content of a View: data begins with row 0, and each row begins stride
// elements after the one before.
type matrix[T tensor.Element] struct {
	data   []T
	stride int
}

// matrixOf returns the matrix of a View, empty for a View of another type.
func matrixOf[T tensor.Element](v tensor.View) matrix[T] {
	data, _ := tensor.Elements[T](v)
	return matrix[T]{data, v.Stride()}
}

// channelsFrom returns the matrix without the channels below lo.
func (m matrix[T]) channelsFrom(lo int) matrix[T] { return matrix[T]{m.data[lo:], m.stride} }

// row returns the first n channels of row r.
func (m matrix[T]) row(r, n int) []T { return m.data[r*m.stride:][:n] }

// block returns exactly the elements, from row r on, that the first n channels of some rows span.
func (m matrix[T]) block(r, rows, n int) []T { return m.data[r*m.stride:][:(rows-1)*m.stride+n] }
