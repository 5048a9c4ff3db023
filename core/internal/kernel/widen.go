package kernel

import "agflow/core/tensor"

// tile is the number of channels widened at a time: the copies stay in the first-level cache.
const tile = 128

// inFloat32 calls work with exact copies of up to four rows of channels lo to hi at a time, rows in
// order for each channel.
func inFloat32[T tensor.Element](
	y, g matrix[T], rows, channels int, work func(lo, hi int, y, g matrix[float32], rows int),
) {
	yCopy := matrix[float32]{make([]float32, 4*tile), tile}
	gCopy := matrix[float32]{make([]float32, 4*tile), tile}
	for r := 0; r < rows; r += 4 {
		four := min(4, rows-r)
		for lo := 0; lo < channels; lo += tile {
			hi := min(lo+tile, channels)
			for i := range four {
				widen(yCopy.row(i, hi-lo), y.row(r+i, hi)[lo:])
				widen(gCopy.row(i, hi-lo), g.row(r+i, hi)[lo:])
			}
			work(lo, hi, yCopy, gCopy, four)
		}
	}
}

// widen has the type switch outside its loops, because inside it would take longer than the
// conversion.
func widen[T tensor.Element](to []float32, from []T) {
	switch from := any(from).(type) {
	case []tensor.Float16:
		for i, v := range from {
			to[i] = v.Float32()
		}
	case []tensor.BFloat16:
		for i, v := range from {
			to[i] = v.Float32()
		}
	}
}
