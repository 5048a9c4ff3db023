package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/tensor"
)

// fromFloat64 rounds to an element type: float16 and bfloat16 by cutting off, which is enough for
// tests.
func fromFloat64[T tensor.Element](v float64) T {
	var element T
	switch e := any(&element).(type) {
	case *float32:
		*e = float32(v)
	case *float64:
		*e = v
	case *tensor.BFloat16:
		*e = tensor.BFloat16(math.Float32bits(float32(v)) >> 16)
	case *tensor.Float16:
		*e = toFloat16(v)
	}
	return element
}

func toFloat16(v float64) tensor.Float16 {
	sign := tensor.Float16(math.Float64bits(v) >> 48 & 0x8000)
	v = math.Abs(v)
	switch {
	case math.IsNaN(v):
		return 0x7e00
	case v >= 65536:
		return sign | 0x7c00
	case v < 0x1p-14:
		return sign | tensor.Float16(v*0x1p24)
	}
	bits := math.Float64bits(v)
	return sign | tensor.Float16((bits>>52-1023+15)<<10|bits>>42&1023)
}

// deviates returns normal deviates over many orders of magnitude, so that the order of additions
// shows in the bits.
func deviates[T tensor.Element](seed uint64, n int) []T {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	v := make([]T, n)
	for i := range v {
		v[i] = fromFloat64[T](r.NormFloat64() * math.Exp(2*r.NormFloat64()))
	}
	return v
}

func viewOf[T tensor.Element](t testing.TB, data []T, rows, channels, stride int) tensor.View {
	t.Helper()
	v, err := tensor.NewStridedView(data, rows, channels, stride)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// mapsOf borrows contiguous maps [images, channels, positions].
func mapsOf[T tensor.Element](
	t testing.TB, data []T, images, channels, positions int,
) tensor.View {
	t.Helper()
	v, err := tensor.NewMapView(data, images, channels, positions, channels*positions, positions)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// guarded returns a buffer of NaN with more of them before and behind it. To be called when it is
// filled, filled returns the check that no element was written since.
func guarded[T tensor.Element](
	t testing.TB, length int,
) (buffer []T, filled func() (check func())) {
	t.Helper()
	const words = 16
	outer := make([]T, length+2*words)
	for i := range outer {
		outer[i] = fromFloat64[T](math.NaN())
	}
	return outer[words : words+length], func() func() {
		before := append([]T(nil), outer...)
		return func() {
			t.Helper()
			for i := range outer {
				if outer[i] != before[i] && (outer[i] == outer[i] || before[i] == before[i]) {
					t.Fatalf("element %d of an input was written", i-words)
				}
			}
		}
	}
}

// spread returns the rows of a contiguous matrix stride apart, in a larger buffer with NaN before,
// between and behind, and a check that no element was written. The view's capacity reaches the
// guard words: Go does not detect an access past the end.
func spread[T tensor.Element](
	t testing.TB, contiguous []T, rows, channels, stride int,
) (v tensor.View, check func()) {
	t.Helper()
	length := 0
	if rows > 0 {
		length = (rows-1)*stride + channels
	}
	inner, filled := guarded[T](t, length)
	for r := range rows {
		copy(inner[r*stride:], contiguous[r*channels:][:channels])
	}
	return viewOf(t, inner, rows, channels, stride), filled()
}

// guardedSums returns sums with NaN around every column, and a check that the NaN are still there.
func guardedSums(t testing.TB, channels int) (s Sums, check func()) {
	t.Helper()
	const words = 8
	outer := make([]float64, columns*pitch(channels)+2*words)
	for i := range outer {
		outer[i] = math.NaN()
	}
	s = sumsIn(outer[words:], channels)
	inside := 0
	for _, column := range s.Columns() {
		clear(column)
		inside += len(column)
	}
	return s, func() {
		t.Helper()
		guards := 0
		for _, v := range outer {
			if math.IsNaN(v) {
				guards++
			}
		}
		if guards != len(outer)-inside {
			t.Fatalf("%d words beside the sums were written", len(outer)-inside-guards)
		}
	}
}

// shareTheLeast lets as many workers work as are asked for, however small the input.
func shareTheLeast(t testing.TB) {
	before := share
	t.Cleanup(func() { share = before })
	share.total, share.absYGs, share.allOf = 1, 1, 1
}

func requireEqual(t testing.TB, got, want Sums) {
	t.Helper()
	g, w := got.Columns(), want.Columns()
	for k := range w {
		requireEqualColumn(t, k, g[k], w[k])
	}
}

// requireEqualColumn compares bits; any NaN equals any other.
func requireEqualColumn(t testing.TB, k int, got, want []float64) {
	t.Helper()
	for c := range want {
		if math.Float64bits(got[c]) != math.Float64bits(want[c]) &&
			!(math.IsNaN(got[c]) && math.IsNaN(want[c])) {
			t.Fatalf("column %d, channel %d: got %v, want %v", k, c, got[c], want[c])
		}
	}
}

// guardedColumn is one column of guardedSums.
func guardedColumn(t testing.TB, channels int) (column []float64, check func()) {
	s, check := guardedSums(t, channels)
	return s.AbsYG, check
}
