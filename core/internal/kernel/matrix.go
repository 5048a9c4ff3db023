package kernel

import "agflow/core/tensor"

// matrix is what a View borrows: data begins with row 0, each row stride elements after the one before.
type matrix[T tensor.Element] struct {
	data   []T
	stride int
}

// matrixOf is empty for a View of another type.
func matrixOf[T tensor.Element](v tensor.View) matrix[T] {
	data, _ := tensor.Elements[T](v)
	return matrix[T]{data, v.Stride()}
}

// channelsFrom leaves out the channels below lo.
func (m matrix[T]) channelsFrom(lo int) matrix[T] { return matrix[T]{m.data[lo:], m.stride} }

// row returns the first n channels of row r.
func (m matrix[T]) row(r, n int) []T { return m.data[r*m.stride:][:n] }

// block returns the elements from row r on that the first n channels of some rows need, no more and no less.
func (m matrix[T]) block(r, rows, n int) []T { return m.data[r*m.stride:][:(rows-1)*m.stride+n] }
