package kernel

import "agflow/core/tensor"

// Tiles are copies in the order of rows of parts of maps: they stay in the first-level cache.
const (
	tileRows     = 256
	tileChannels = 8
)

// isMaps reports whether a View is of maps, whose channels lie apart.
func isMaps(v tensor.View) bool { return v.Positions() > 0 }

// inTiles calls work with a few rows of a few of the channels lo to hi at a time, rows in order for
// each channel. Of an image all channels come before the next image, as they lie in memory. y and g
// may differ in their layouts.
func inTiles[T tensor.Element](
	y, g tensor.View, lo, hi int, work func(lo, hi int, y, g matrix[T], rows int),
) {
	yTile, gTile := newTile[T](y), newTile[T](g)
	for first := 0; first < y.Rows(); {
		last := first + min(yTile.neighbours(first), gTile.neighbours(first))
		for c := lo; c < hi; c += tileChannels {
			end := min(c+tileChannels, hi)
			for r := first; r < last; r += tileRows {
				rows := min(tileRows, last-r)
				work(c, end, yTile.of(r, rows, c, end), gTile.of(r, rows, c, end), rows)
			}
		}
		first = last
	}
}

// rowTile shows parts of a View as rows: directly, or copied where it is of maps.
type rowTile[T tensor.Element] struct {
	view tensor.View
	data []T
	copy matrix[T]
}

func newTile[T tensor.Element](v tensor.View) rowTile[T] {
	data, _ := tensor.Elements[T](v)
	t := rowTile[T]{view: v, data: data}
	if isMaps(v) {
		t.copy = matrix[T]{make([]T, tileRows*tileChannels), tileChannels}
	}
	return t
}

// neighbours returns the number of rows from row r on that follow each other evenly: those left of
// its image, or all.
func (t rowTile[T]) neighbours(r int) int {
	if positions := t.view.Positions(); positions > 0 {
		return positions - r%positions
	}
	return t.view.Rows() - r
}

// of returns some rows, at most as many as are neighbours, of channels lo to hi.
func (t rowTile[T]) of(r, rows, lo, hi int) matrix[T] {
	if !isMaps(t.view) {
		return matrix[T]{t.data[r*t.view.Stride()+lo:], t.view.Stride()}
	}
	positions, step := t.view.Positions(), t.view.ChannelStride()
	image, first := r/positions, r%positions
	from := matrix[T]{t.data[image*t.view.Stride()+lo*step:], step}
	transpose(t.copy, from, hi-lo, first, first+rows)
	return t.copy
}

// transpose copies positions first to last of some channels, which are the rows of from, to the
// rows of to.
func transpose[T tensor.Element](to, from matrix[T], channels, first, last int) {
	wholeChannels, wholePositions := transposeVectors(to, from, channels, first, last)
	for c := range channels {
		done := 0
		if c < wholeChannels {
			done = wholePositions
		}
		for p, value := range from.row(c, last)[first+done:] {
			to.data[(done+p)*to.stride+c] = value
		}
	}
}
