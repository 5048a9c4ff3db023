//go:build amd64 && !purego

package kernel

import "agflow/core/tensor"

// paddedRows is the number of rows padded at a time.
const paddedRows = 16

// padded holds a few rows of fewer channels than a vector has, followed by zeros.
type padded[T tensor.Element] [paddedRows * vector]T

// of copies the first channels of some rows. The number of channels must be the same in every call.
func (p *padded[T]) of(m matrix[T], r, rows, channels int) matrix[T] {
	for i := range rows {
		copy(p[i*vector:], m.row(r+i, channels))
	}
	return matrix[T]{p[:], vector}
}
