package kernel

import (
	"fmt"
	"math"
	"testing"

	"agflow/core/tensor"
)

// reference is the definition: float64, row by row.
func reference(y, g tensor.View) Sums {
	s := NewSums(y.Channels())
	var yRow, gRow []float64
	for r := range y.Rows() {
		yRow, gRow = y.Row(r, yRow), g.Row(r, gRow)
		for c := range yRow {
			y, g := yRow[c], gRow[c]
			p := float64(y * g)
			s.AbsYG[c] += math.Abs(p)
			s.YG[c] += p
			s.YG2[c] += float64(p * p)
			s.AbsY[c] += math.Abs(y)
			s.Y[c] += y
			s.Y2[c] += float64(y * y)
			s.G2[c] += float64(g * g)
			if math.Abs(p) > s.MaxAbsYG[c] {
				s.MaxAbsYG[c] = math.Abs(p)
			}
		}
	}
	return s
}

// The bits equal the float64 reference for every kernel, dtype, shape, stride, number of workers
// and split of the rows over two calls; nothing outside the rows is read (a NaN would show) or
// written.
func TestSumsHaveTheBitsOfTheReference(t *testing.T) {
	onEachKernel(t, func(t *testing.T) {
		t.Run("float32", testBits[float32])
		t.Run("float64", testBits[float64])
		t.Run("float16", testBits[tensor.Float16])
		t.Run("bfloat16", testBits[tensor.BFloat16])
	})
}

func testBits[T tensor.Element](t *testing.T) {
	for _, shape := range []struct{ channels, rows int }{
		{1, 70}, {7, 9}, {8, 0}, {8, 1}, {8, 2}, {8, 3}, {8, 197}, {15, 7}, {40, 66},
		{768, 6}, {3072, 5}, {12288, 5},
	} {
		rows, channels := shape.rows, shape.channels
		y, g := deviates[T](1, rows*channels), deviates[T](2, rows*channels)
		want := reference(viewOf(t, y, rows, channels, channels),
			viewOf(t, g, rows, channels, channels))
		for _, gap := range [][2]int{{0, 0}, {0, 3}, {16, 0}, {1, 9}} {
			for _, workers := range []int{-1, 1, 2, 7} {
				for _, cut := range []int{rows / 3, rows} {
					name := fmt.Sprintf("channels=%d/rows=%d/gaps=%v/workers=%d/cut=%d", channels,
						rows, gap, workers, cut)
					t.Run(name, func(t *testing.T) {
						requireBits(t, want, workers, rows, cut,
							func(first, last int) (_, _ tensor.View, check func()) {
								lo, hi := first*channels, last*channels
								y, checkY := spread(t, y[lo:hi], last-first, channels,
									channels+gap[0])
								g, checkG := spread(t, g[lo:hi], last-first, channels,
									channels+gap[1])
								return y, g, func() { checkY(); checkG() }
							})
					})
				}
			}
		}
	}
}

// requireBits adds what is before cut and what is behind it, of n, in two calls, and requires the
// bits of want. part returns y and g of one of them, and the check that no element was written.
func requireBits(
	t *testing.T, want Sums, workers, n, cut int,
	part func(first, last int) (y, g tensor.View, check func()),
) {
	t.Helper()
	shareTheLeast(t)
	got, checkSums := guardedSums(t, want.Channels())
	sumC, checkFlow := guardedColumn(t, want.Channels())
	for _, ends := range [][2]int{{0, cut}, {cut, n}} {
		y, g, check := part(ends[0], ends[1])
		requireNoError(t, got.Add(y, g, workers))
		requireNoError(t, AbsYG(sumC, y, g, workers))
		check()
	}
	requireEqual(t, got, want)
	requireEqualColumn(t, 0, sumC, want.AbsYG)
	checkSums()
	checkFlow()
}

// NaN and infinities show in AbsY or G2 of their own channel and in no other, which the caller's
// check relies on. They do not enter the maximum.
func TestNonFiniteElementsShowInTheirChannel(t *testing.T) {
	const rows, channels = 9, 43
	onEachKernel(t, func(t *testing.T) {
		for _, bad := range []float32{
			float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)),
		} {
			for _, row := range []int{0, 3, 8} {
				y, g := make([]float32, rows*channels), make([]float32, rows*channels)
				y[row*channels+5], g[row*channels+9], y[row*channels+41] = bad, bad, bad
				s := NewSums(channels)
				requireNoError(t,
					s.Add(viewOf(t, y, rows, channels, channels),
						viewOf(t, g, rows, channels, channels), 3))
				for c := range channels {
					finiteY, finiteG := s.AbsY[c]-s.AbsY[c] == 0, s.G2[c]-s.G2[c] == 0
					if finiteY != (c != 5 && c != 41) || finiteG != (c != 9) || s.MaxAbsYG[c] != 0 {
						t.Fatalf("%v in row %d: channel %d has AbsY %v, G2 %v, MaxAbsYG %v", bad,
							row, c, s.AbsY[c], s.G2[c], s.MaxAbsYG[c])
					}
				}
			}
		}
	})
}

// The largest float32 never overflow the sums, so a non-finite sum of theirs always means a
// non-finite element.
func TestLargestElementsStayFinite(t *testing.T) {
	const rows = 1000
	y, g := make([]float32, 8*rows), make([]float32, 8*rows)
	for i := range y {
		y[i], g[i] = math.MaxFloat32, -math.MaxFloat32
	}
	onEachKernel(t, func(t *testing.T) {
		s := NewSums(8)
		requireNoError(t, s.Add(viewOf(t, y, rows, 8, 8), viewOf(t, g, rows, 8, 8), 1))
		for _, column := range s.Columns() {
			if v := column[0]; v-v != 0 {
				t.Fatalf("a sum of finite elements is %v", v)
			}
		}
	})
}

// A float64 chain over a million rows stays within 1e-13 of a sum in twice the precision.
func TestAMillionRowsAreAccurate(t *testing.T) {
	const blocks, rows, channels = 1000, 1000, 8
	s := NewSums(channels)
	var high, low [channels]float64
	for block := range uint64(blocks) {
		y := deviates[float32](2*block, rows*channels)
		g := deviates[float32](2*block+1, rows*channels)
		requireNoError(t,
			s.Add(viewOf(t, y, rows, channels, channels), viewOf(t, g, rows, channels, channels),
				1))
		for i := range y {
			c, v := i%channels, math.Abs(float64(y[i])*float64(g[i]))
			// the rounding error of this addition goes to low, exactly, as v and high are positive
			sum := high[c] + v
			low[c] += min(high[c], v) - (sum - max(high[c], v))
			high[c] = sum
		}
	}
	for c, got := range s.AbsYG {
		want := high[c] + low[c]
		if relative := math.Abs(got-want) / want; relative > 1e-13 {
			t.Errorf("channel %d: got %v, want %v, off by %v", c, got, want, relative)
		}
	}
}

// A panic of a worker, the only one or one of several, is returned as an error; in a bare goroutine
// it would end the process.
func TestAWorkersPanicIsAnError(t *testing.T) {
	onEachKernel(t, func(t *testing.T) {
		s := NewSums(64)
		y, g := viewOf(t, make([]float32, 64), 1, 64, 64), viewOf(t, make([]float32, 3), 1, 3, 3)
		for _, workers := range []int{1, 4} {
			if s.Add(y, g, workers) == nil || AbsYG(s.AbsYG, y, g, workers) == nil {
				t.Fatal("a buffer that is too short went unnoticed")
			}
		}
		if s.Add(y, viewOf(t, make([]float64, 64), 1, 64, 64), 1) == nil {
			t.Fatal("a buffer of another type went unnoticed")
		}
	})
}

// Every element of every row is read, and nothing else.
func TestReadOrsAllElements(t *testing.T) {
	onEachKernel(t, func(t *testing.T) {
		t.Run("float32", testRead[float32])
		t.Run("float64", testRead[float64])
		t.Run("float16", testRead[tensor.Float16])
		t.Run("bfloat16", testRead[tensor.BFloat16])
	})
}

func testRead[T tensor.Element](t *testing.T) {
	two := fromFloat64[T](2) // a single bit in every type
	want := Read(viewOf(t, []T{two}, 1, 1, 1), 1)
	if want&(want-1) != 0 || want == 0 {
		t.Fatalf("two has the bits %x", want)
	}
	for _, shape := range [][2]int{{0, 5}, {1, 1}, {3, 7}, {5, 131}, {40, 33}} {
		rows, channels := shape[0], shape[1]
		for i := range rows * channels {
			data := make([]T, rows*channels)
			data[i] = two
			for _, gap := range []int{0, 5} {
				v, _ := spread(t, data, rows, channels, channels+gap)
				for _, workers := range []int{1, 2} {
					if got := Read(v, workers); got != want {
						t.Fatalf("[%d, %d], gap %d, element %d: got %x, want %x", rows, channels,
							gap, i, got, want)
					}
				}
			}
		}
	}
}

func requireNoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
