//go:build amd64 && !purego

package kernel

import "agflow/core/tensor"

// paddedRows is how many rows are padded at a time.
const paddedRows = 16

// padded holds a few rows of fewer channels than a vector has, with zeros behind them.
type padded[T tensor.Element] [paddedRows * vector]T

// of copies the first channels of some rows, each time as many.
func (p *padded[T]) of(m matrix[T], r, rows, channels int) matrix[T] {
	for i := range rows {
		copy(p[i*vector:], m.row(r+i, channels))
	}
	return matrix[T]{p[:], vector}
}
