//go:build amd64 && !purego

package kernel

import "agflow/core/tensor"

const (
	vectorPositions  = 4       // positions that the assembly for maps processes at a time
	positionsPerCall = 1 << 13 // as elementsPerCall, of eight channels
	leastAhead       = 1 << 13 // bytes: the way of a read from memory, at its speed
)

// ahead returns how far from position p of eight channels, the given elements apart, to what the
// assembly for maps asks for meanwhile: the same share of a later eight, in bytes.
func ahead(stride, p int) int {
	eight := 4 * vector * stride
	return (leastAhead+eight-1)/eight*eight + 4*(vector-1)*p
}

// transposeVectors copies whole groups of channels and positions, and returns how many.
func transposeVectors[T tensor.Element](
	to, from matrix[T], channels, first, last int,
) (wholeChannels, wholePositions int) {
	floats, ok := any(from).(matrix[float32])
	channels, positions := channels&^(vector-1), (last-first)&^(vectorPositions-1)
	if !ok || !avx2 || channels == 0 || positions == 0 {
		return 0, 0
	}
	rows := any(to).(matrix[float32])
	for c := 0; c < channels; c += vector {
		from, to := floats.block(c, vector, first+positions)[first:], rows.channelsFrom(c)
		transposeFloat32(&from[0], 4*floats.stride, ahead(floats.stride, first), positions,
			&to.block(0, positions, vector)[0], 4*to.stride)
	}
	return channels, positions
}

// absYGMapsVectors adds Σ|y·g| of maps of float32 with equal positions to the sums of channels lo
// and above, and returns true; it returns false for others. Channels beyond whole vectors are padded
// with zeros, which change no sum.
func absYGMapsVectors(sumC []float64, y, g tensor.View, lo int) bool {
	yData, yOK := tensor.Elements[float32](y)
	gData, gOK := tensor.Elements[float32](g)
	positions := y.Positions()
	if !avx2 || !yOK || !gOK || positions == 0 || g.Positions() != positions {
		return false
	}
	for image := range y.Rows() / positions {
		y := matrix[float32]{yData[image*y.Stride()+lo*y.ChannelStride():], y.ChannelStride()}
		g := matrix[float32]{gData[image*g.Stride()+lo*g.ChannelStride():], g.ChannelStride()}
		whole := len(sumC) &^ (vector - 1)
		for c := 0; c < whole; c += vector {
			absYGImage(sumC[c:], y.channelsFrom(c*y.stride), g.channelsFrom(c*g.stride), positions)
		}
		if whole < len(sumC) {
			absYGPadded(sumC[whole:], y.channelsFrom(whole*y.stride),
				g.channelsFrom(whole*g.stride), positions)
		}
	}
	return true
}

// absYGImage adds all positions of eight channels, which are the rows of y and g.
func absYGImage(sumC []float64, y, g matrix[float32], positions int) {
	for p := 0; p < positions; p += positionsPerCall {
		n := min(positionsPerCall, positions-p)
		absYGMapsFloat32(&y.data[p:][:7*y.stride+n][0], &g.data[p:][:7*g.stride+n][0], 4*y.stride,
			4*g.stride, ahead(y.stride, p), ahead(g.stride, p), n, &sumC[:vector][0])
	}
}

// absYGPadded adds all positions of fewer than eight channels.
func absYGPadded(sumC []float64, y, g matrix[float32], positions int) {
	var sum [vector]float64
	copy(sum[:], sumC)
	var yPadded, gPadded paddedMaps
	for p := 0; p < positions; p += paddedPositions {
		n := min(paddedPositions, positions-p)
		yPadded.of(y, len(sumC), p, n)
		gPadded.of(g, len(sumC), p, n)
		absYGMapsFloat32(&yPadded[0], &gPadded[0], 4*paddedPositions, 4*paddedPositions, 0, 0, n,
			&sum[0])
	}
	copy(sumC, sum[:])
}

// paddedPositions is the number of positions padded at a time.
const paddedPositions = 32

// paddedMaps holds a few positions of fewer than eight channels; the other channels are zeros.
type paddedMaps [vector * paddedPositions]float32

// of copies n positions from p on. The number of channels must be the same in every call.
func (m *paddedMaps) of(from matrix[float32], channels, p, n int) {
	for c := range channels {
		copy(m[c*paddedPositions:][:paddedPositions], from.data[c*from.stride+p:][:n])
	}
}
