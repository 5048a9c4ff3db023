package tensor_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// A View shares the caller's memory.
func TestViewBorrows(t *testing.T) {
	data := []float32{0, 1, 2, 3, 4, 5}
	v, err := tensor.NewView(data, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	elements, ok := tensor.Elements[float32](v)
	if !ok || v.Rows() != 2 || v.Channels() != 3 || v.Stride() != 3 || &elements[0] != &data[0] ||
		len(elements) != 6 {
		t.Fatal("the view does not show the caller's memory")
	}
	if _, ok := tensor.Elements[float64](v); ok {
		t.Fatal("float32 elements were given out as float64")
	}
}

func TestViewMayHaveNoRows(t *testing.T) {
	v, err := tensor.NewView[tensor.Float16](nil, 0, 4)
	if err != nil || v.Rows() != 0 || v.Channels() != 4 || v.Dtype() != tensor.Float16Type {
		t.Fatalf("got %v, %v", v, err)
	}
	if data, ok := tensor.Elements[tensor.Float16](v); !ok || len(data) != 0 {
		t.Fatalf("got %v, %v", data, ok)
	}
}

// Rows are converted without loss, from any type and stride, into the slice given where it is long
// enough.
func TestRowWidens(t *testing.T) {
	check := func(v tensor.View, err error, dtype string) {
		t.Helper()
		if err != nil || v.Dtype().String() != dtype {
			t.Fatalf("got %v, %v, want %s", v, err, dtype)
		}
		into := make([]float64, 8)
		if row := v.Row(1, into); !slices.Equal(row, []float64{-2, 0.5}) || &row[0] != &into[0] {
			t.Errorf("%s: got %v", dtype, row)
		}
		if row := v.Row(0, nil); !slices.Equal(row, []float64{1, 0}) {
			t.Errorf("%s: got %v", dtype, row)
		}
	}
	v, err := tensor.NewStridedView([]float32{1, 0, 9, -2, 0.5}, 2, 2, 3)
	check(v, err, "float32")
	v, err = tensor.NewStridedView([]float64{1, 0, 9, -2, 0.5}, 2, 2, 3)
	check(v, err, "float64")
	v, err = tensor.NewStridedView([]tensor.Float16{0x3c00, 0, 9, 0xc000, 0x3800}, 2, 2, 3)
	check(v, err, "float16")
	v, err = tensor.NewView([]tensor.BFloat16{0x3f80, 0, 0xc000, 0x3f00}, 2, 2)
	check(v, err, "bfloat16")
}

func TestViewRefusesSizesThatDoNotFit(t *testing.T) {
	for _, c := range []struct{ elements, rows, channels, stride int }{
		{6, 2, 4, 4}, {6, 4, 2, 2}, {7, 2, 3, 3}, {5, 2, 3, 3}, {
			6, -2, -3, -3,
		}, {0, 0, 0, 0}, {0, 3, 0, 0}, {4, 1, 3, 3},
		{0, math.MaxInt, 2, 2}, {0, 1 << 62, 4, 4}, // products that overflow to small numbers
		{6, 2, 3, 2}, {6, 2, 3, 4}, {8, 2, 3, 4}, {3, 0, 3, 3},
	} {
		data := make([]float32, c.elements)
		_, err := tensor.NewStridedView(data, c.rows, c.channels, c.stride)
		if err == nil || fault.CodeOf(err) != fault.Shape {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

// The rows of maps are the positions of their images, of any type and strides.
func TestRowsOfMaps(t *testing.T) {
	check := func(v tensor.View, err error) {
		t.Helper()
		if err != nil || v.Rows() != 4 || v.Channels() != 2 || v.Positions() != 2 ||
			v.Stride() != 7 || v.ChannelStride() != 3 {
			t.Fatalf("got %+v, %v", v, err)
		}
		for r, want := range [][]float64{{1, 4}, {2, 5}, {8, 11}, {9, 12}} {
			if row := v.Row(r, make([]float64, 2)); !slices.Equal(row, want) {
				t.Errorf("%v, row %d: got %v, want %v", v.Dtype(), r, row, want)
			}
		}
	}
	wide := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	narrow := make([]float32, len(wide))
	brains := make([]tensor.BFloat16, len(wide))
	halves := []tensor.Float16{
		0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800, 0x4880, 0x4900, 0x4980,
		0x4a00,
	}
	for i, v := range wide {
		narrow[i] = float32(v)
		brains[i] = tensor.BFloat16(math.Float32bits(float32(v)) >> 16)
	}
	check(tensor.NewMapView(wide, 2, 2, 2, 7, 3))
	check(tensor.NewMapView(narrow, 2, 2, 2, 7, 3))
	check(tensor.NewMapView(halves, 2, 2, 2, 7, 3))
	check(tensor.NewMapView(brains, 2, 2, 2, 7, 3))
	if v, err := tensor.NewMapView[float32](nil, 0, 3, 5, 15, 5); err != nil || v.Rows() != 0 {
		t.Errorf("no images: got %+v, %v", v, err)
	}
}

func TestMapsRefuseSizesThatDoNotFit(t *testing.T) {
	for _, c := range []struct{ elements, images, channels, positions, stride, channelStride int }{
		{12, 2, 2, 3, 6, 2}, {11, 2, 2, 3, 5, 3}, {11, 2, 2, 3, 6, 3}, {13, 2, 2, 3, 6, 3},
		{6, -1, 2, 3, 6, 3}, {0, 1, 0, 3, 6, 3}, {0, 1, 2, 0, 6, 3}, {6, 0, 2, 3, 6, 3},
		{0, math.MaxInt, 2, 3, 6, 3}, {0, 2, 1 << 62, 4, 1 << 62, 4},
		{0, 1 << 62, 1, 4, 4, 4}, {0, 2, 2, math.MaxInt, math.MaxInt, math.MaxInt},
	} {
		data := make([]float32, c.elements)
		_, err := tensor.NewMapView(data, c.images, c.channels, c.positions, c.stride,
			c.channelStride)
		if err == nil || fault.CodeOf(err) != fault.Shape {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

// All 65,536 float16 numbers equal sign · mantissa · 2^exponent computed from their bits.
func TestFloat16IsExact(t *testing.T) {
	for bits := range 1 << 16 {
		got := float64(tensor.Float16(bits).Float32())
		exponent, mantissa := bits>>10&31, float64(bits&1023)
		want := math.Ldexp(1024+mantissa, exponent-25)
		switch exponent {
		case 0:
			want = math.Ldexp(mantissa, -24)
		case 31:
			want = math.Inf(1)
			if mantissa != 0 {
				want = math.NaN()
			}
		}
		if math.Signbit(got) != (bits>>15 == 1) ||
			math.Abs(got) != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Fatalf("%#04x: got %v, want %v", bits, got, want)
		}
	}
}

// A bfloat16 is the upper half of a float32.
func TestBFloat16IsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		want := math.Float32frombits(r.Uint32() &^ 0xffff)
		got := tensor.BFloat16(math.Float32bits(want) >> 16).Float32()
		if math.Float32bits(got) != math.Float32bits(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}
