// Package tensor defines [View], the borrowed matrix of activations, gradients, weights and logits,
// and its element types.
//
// A View never owns, copies or writes elements: the owner of the memory keeps it alive until the
// call that got the View returns.
package tensor

import (
	"math"

	"agflow/core/cancel"
	"agflow/core/fault"
)

// View is a borrowed matrix [rows, channels] of float32, float64, float16 or bfloat16, in one of
// two layouts. By default the channels of a row lie next to each other, and rows may lie further
// apart. The maps of a convolution lie channel after channel instead: an image is a run of rows,
// its positions, and the values of a channel at all of them lie next to each other. The zero View
// is empty and of float32.
type View struct {
	// []float32, []float64, []Float16 or []BFloat16; nil when there are no rows
	data                   any
	dtype                  Dtype
	rows, channels, stride int
	// of maps, else 0: rows of an image, and elements from one channel of it to the next
	positions, channelStride int
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

// NewMapView borrows maps [images, channels, positions], whose row r is position r % positions of
// image r / positions: images begin stride elements apart and their channels channelStride. data
// must hold exactly (images-1)*stride+(channels-1)*channelStride+positions elements, none for no
// images.
//
// Errors: shape.
func NewMapView[T Element](
	data []T, images, channels, positions, stride, channelStride int,
) (View, error) {
	image := View{channels: channels, positions: positions, channelStride: channelStride}
	span, ok := image.span()
	if images < 0 || !ok || stride < span || images > math.MaxInt/max(positions, 1) {
		return View{}, fault.New(fault.Shape,
			"maps of %d images, %d channels and %d positions, %d elements from image to image and "+
				"%d from channel to channel, were given; there must be at least 0 images, 1 "+
				"channel and 1 position, and nothing may overlap",
			images, channels, positions, stride, channelStride)
	}
	if !holds(len(data), images, span, stride) {
		return View{}, fault.New(fault.Shape,
			"%d elements were given for maps of %d images, %d channels and %d positions, %d "+
				"elements from image to image and %d from channel to channel; pass exactly "+
				"(images-1)*stride+(channels-1)*channelStride+positions elements, none for no "+
				"images",
			len(data), images, channels, positions, stride, channelStride)
	}
	v := image
	v.dtype, v.rows, v.stride = dtypeOf[T](), images*positions, stride
	if images > 0 {
		v.data = data
	}
	return v, nil
}

// span returns the elements from the first of an image to its last; ok is false where there are
// none or they overlap.
func (v View) span() (elements int, ok bool) {
	if v.channels < 1 || v.positions < 1 || v.channelStride < v.positions ||
		v.channels > (math.MaxInt-v.positions)/v.channelStride {
		return 0, false
	}
	return (v.channels-1)*v.channelStride + v.positions, true
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

// Stride returns the number of elements from the beginning of a row to that of the next; of maps,
// from the beginning of an image to that of the next.
func (v View) Stride() int { return v.stride }

// Positions returns the number of rows of an image of maps, 0 for a View that is no maps.
func (v View) Positions() int { return v.positions }

// ChannelStride returns the number of elements from one channel of an image to the next, 0 for a
// View that is no maps.
func (v View) ChannelStride() int { return v.channelStride }

// Elements returns the borrowed elements from the first to the last of all rows, read only; ok is
// false for a View of another type.
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
	if v.positions > 0 {
		v.gather(i, into)
		return into
	}
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

// gather is Row for maps.
func (v View) gather(i int, into []float64) {
	at := i/v.positions*v.stride + i%v.positions
	switch data := v.data.(type) {
	case []float32:
		for c := range into {
			into[c] = float64(data[at+c*v.channelStride])
		}
	case []float64:
		for c := range into {
			into[c] = data[at+c*v.channelStride]
		}
	case []Float16:
		for c := range into {
			into[c] = float64(data[at+c*v.channelStride].Float32())
		}
	case []BFloat16:
		for c := range into {
			into[c] = float64(data[at+c*v.channelStride].Float32())
		}
	}
}
