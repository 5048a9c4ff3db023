package carrow

import (
	"math"
	"strconv"
	"testing"
	"unsafe"

	"agflow/bridge/internal/cstruct"
	"agflow/core/tensor"

	"pgregory.net/rapid"
)

// rawStrided is a matrix of any dtype as a producer with row strides and slices makes it.
type rawStrided struct {
	format, dtype                string
	lists, channels, stride      int
	positions                    int // of maps, else 0
	listOffset, itemOffset, tail int
}

func drawStrided(t *rapid.T) rawStrided {
	kinds := [][2]string{{"f", ""}, {"f", "float32"}, {"g", ""}, {"e", ""}, {"S", "bfloat16"}}
	kind := rapid.SampledFrom(kinds).Draw(t, "kind")
	channels := rapid.IntRange(1, 5).Draw(t, "channels")
	small := rapid.IntRange(0, 3)
	positions := small.Draw(t, "positions")
	return rawStrided{
		format: kind[0], dtype: kind[1], positions: positions,
		lists: small.Draw(t, "lists"), channels: channels,
		stride:     channels*max(positions, 1) + small.Draw(t, "gap"),
		listOffset: small.Draw(t, "list offset"), itemOffset: small.Draw(t, "item offset"),
		tail: small.Draw(t, "tail"),
	}
}

// width is the number of values of a list.
func (m rawStrided) width() int { return m.channels * max(m.positions, 1) }

// place is where in the whole buffer the value of a channel in a row lies.
func (m rawStrided) place(row, channel int) int {
	list, position := row, 0
	if m.positions > 0 {
		list, position, channel = row/m.positions, row%m.positions, channel*m.positions
	}
	return m.itemOffset + (m.listOffset+list)*m.stride + channel + position
}

// value i of the whole buffer, before it is rounded to the dtype: exact in all of them.
func (m rawStrided) value(i int) float64 { return float64(i) - 7 }

// export puts the values into memory of C.
func (m rawStrided) export(t testing.TB) *raw {
	n := m.itemOffset + (m.listOffset+m.lists)*m.stride + m.tail
	r := newRaw(t)
	var data unsafe.Pointer
	switch m.format {
	case "f":
		data = fillValues(r, n, func(i int) float32 { return float32(m.value(i)) })
	case "g":
		data = fillValues(r, n, m.value)
	case "e":
		data = fillValues(r, n, func(i int) uint16 { return halfOf(m.value(i)) })
	case "S":
		data = fillValues(r, n,
			func(i int) uint16 { return uint16(math.Float32bits(float32(m.value(i))) >> 16) })
	}
	item := r.newArray(int64(n-m.itemOffset), []unsafe.Pointer{nil, data})
	item.offset = int64(m.itemOffset)
	list := r.newArray(int64(m.lists), []unsafe.Pointer{nil}, item)
	list.offset = int64(m.listOffset)
	schema := r.newSchema("+w:"+strconv.Itoa(m.width()), "", r.newSchema(m.format, "item"))
	words := []string{"foreign", "ignored"}
	if m.dtype != "" {
		words = append(words, "agflow.dtype", m.dtype)
	}
	if m.positions > 0 {
		words = append(words, "agflow.positions", strconv.Itoa(m.positions))
	}
	if m.stride != m.width() {
		words = append(words, "agflow.row_stride", strconv.Itoa(m.stride))
	}
	schema.metadata = rawMetadata(r, words...)
	return r.top(list, schema)
}

func fillValues[T any](r *raw, n int, value func(int) T) unsafe.Pointer {
	values := make([]T, n)
	for i := range values {
		values[i] = value(i)
	}
	return pointer(cstruct.Slice(r.Memory, values...))
}

// halfOf rounds by looking for the number: there are only 65,536.
func halfOf(x float64) uint16 {
	for bits := range 1 << 16 {
		if float64(tensor.Float16(bits).Float32()) == x {
			return uint16(bits)
		}
	}
	panic("not a float16")
}

// TestMatrixOfEveryDtype proves that dtype, row stride, positions and both offsets lead to the
// producer's values, wherever they lie.
func TestMatrixOfEveryDtype(t *testing.T) {
	names := map[string]string{"f": "float32", "g": "float64", "e": "float16", "S": "bfloat16"}
	rapid.Check(t, func(rt *rapid.T) {
		m := drawStrided(rt)
		in := m.export(t).take("y")
		defer in.Release()
		view, err := in.Matrix()
		if err != nil {
			rt.Fatal(err)
		}
		rows := m.lists * max(m.positions, 1)
		if view.Dtype().String() != names[m.format] || view.Rows() != rows ||
			view.Channels() != m.channels || view.Stride() != m.stride ||
			view.Positions() != m.positions {
			rt.Fatalf("%v [%d, %d], stride %d",
				view.Dtype(), view.Rows(), view.Channels(), view.Stride())
		}
		for r := range rows {
			for c, got := range view.Row(r, nil) {
				if want := m.value(m.place(r, c)); got != want {
					rt.Fatalf("row %d, channel %d is %v, expected %v", r, c, got, want)
				}
			}
		}
	})
}

// TestMarkReleased proves that the callback handed out marks both structs, called from C as from
// Go.
func TestMarkReleased(t *testing.T) {
	for _, inC := range []bool{false, true} {
		r := rawMatrix(t, "2", 1, 1, 2)
		r.array.release, r.schema.release = MarkReleased, MarkReleased
		r.array.private, r.schema.private = 0, 0
		if inC {
			cstruct.Call(unsafe.Pointer(at[byte](MarkReleased)), unsafe.Pointer(r.array))
			cstruct.Call(unsafe.Pointer(at[byte](MarkReleased)), unsafe.Pointer(r.schema))
		} else {
			r.take("y").Release()
		}
		if r.array.release != 0 || r.schema.release != 0 || r.array.length != 1 ||
			r.schema.nChildren != 1 {
			t.Errorf("in C %v: %+v, %+v", inC, r.array, r.schema)
		}
	}
}

// BenchmarkMatrix borrows one matrix: take, read, release.
func BenchmarkMatrix(b *testing.B) {
	for _, m := range []rawStrided{
		{format: "f", lists: 2, channels: 8, stride: 8},
		{format: "S", dtype: "bfloat16", lists: 2, channels: 8, stride: 16},
	} {
		b.Run(m.format, func(b *testing.B) {
			r := m.export(b)
			if m.dtype == "" {
				r.schema.metadata = 0
			}
			b.ReportAllocs()
			for b.Loop() {
				r.array.release, r.schema.release = MarkReleased, MarkReleased
				in := r.take("y")
				if _, err := in.Matrix(); err != nil {
					b.Fatal(err)
				}
				in.Release()
			}
		})
	}
}
