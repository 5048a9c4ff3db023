//go:build !amd64 || purego

package kernel

import "agflow/core/tensor"

// Name returns "portable": this build has no other kernel.
func Name() string { return "portable" }

func addVectors[T tensor.Element](Sums, matrix[T], matrix[T], int) bool        { return false }
func absYGVectors[T tensor.Element]([]float64, matrix[T], matrix[T], int) bool { return false }
func absYGMapsVectors([]float64, tensor.View, tensor.View, int) bool           { return false }
func orVectors[T tensor.Element]([]T, int) (words uint64, elements int)        { return 0, 0 }

func transposeVectors[T tensor.Element](_, _ matrix[T], _, _, _ int) (channels, positions int) {
	return 0, 0
}

// Compare returns which of 64 scores are above high and which below low; a NaN is neither:
//
//	above |= bit(block[i] > high) << i
//	below |= bit(block[i] < low) << i
func Compare(block *[64]float64, low, high float64) (above, below uint64) {
	return comparePortable(block, low, high)
}
