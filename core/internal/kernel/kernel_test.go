package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// values returns normal deviates over many orders of magnitude, so that the order of additions shows in the bits.
func values(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() * math.Exp(4*r.NormFloat64()))
	}
	return v
}

// reference is the definition: float64, row by row.
func reference(y, g []float32, rows, channels int) Sums {
	s := NewSums(channels)
	for r := range rows {
		for c := range channels {
			y, g := float64(y[r*channels+c]), float64(g[r*channels+c])
			p := float64(y * g)
			s.AbsYG[c] += math.Abs(p)
			s.YG[c] += p
			s.YG2[c] += float64(p * p)
			s.AbsY[c] += math.Abs(y)
			s.Y[c] += y
			s.Y2[c] += float64(y * y)
			s.G2[c] += float64(g * g)
			s.MaxAbsYG[c] = max(s.MaxAbsYG[c], math.Abs(p))
		}
	}
	return s
}

// guarded returns a copy of v with NaN words around it, and a check that they and, if readOnly, v are untouched.
func guarded[T float32 | float64](t *testing.T, v []T, readOnly bool) (inner []T, check func()) {
	t.Helper()
	const words = 8
	nan := T(math.NaN())
	outer := make([]T, len(v)+2*words)
	for i := range outer {
		outer[i] = nan
	}
	inner = outer[words : words+len(v)] // its capacity reaches the guard words: a slip past the end is not caught by Go
	copy(inner, v)
	return inner, func() {
		t.Helper()
		for i := range words {
			if outer[i] == outer[i] || outer[len(outer)-1-i] == outer[len(outer)-1-i] {
				t.Fatal("a word outside the buffer was written")
			}
		}
		for i := range v {
			if readOnly && inner[i] != v[i] {
				t.Fatalf("input element %d was written", i)
			}
		}
	}
}

func requireEqual(t *testing.T, got, want Sums) {
	t.Helper()
	g, w := got.columns(), want.columns()
	for k := range w {
		for c := range *w[k] {
			if math.Float64bits((*g[k])[c]) != math.Float64bits((*w[k])[c]) {
				t.Fatalf("column %d, channel %d: got %v, want %v", k, c, (*g[k])[c], (*w[k])[c])
			}
		}
	}
}

// The bits equal the float64 reference for every shape, number of workers and split of the rows over two calls; nothing
// outside the buffers is read (a NaN would show) or written.
func TestAddHasTheBitsOfTheReference(t *testing.T) {
	for _, channels := range []int{1, 7, 16, 33, 768} {
		for _, rows := range []int{0, 1, 2, 3, 4, 5, 8, 197} {
			y, g := values(1, rows*channels), values(2, rows*channels)
			want := reference(y, g, rows, channels)
			for _, workers := range []int{-1, 1, 2, 3, 7, 16} {
				for _, cut := range []int{0, rows / 3, rows / 2, rows} {
					t.Run(fmt.Sprintf("channels=%d/rows=%d/workers=%d/cut=%d", channels, rows, workers, cut), func(t *testing.T) {
						y1, checkY1 := guarded(t, y[:cut*channels], true)
						g1, checkG1 := guarded(t, g[:cut*channels], true)
						y2, checkY2 := guarded(t, y[cut*channels:], true)
						g2, checkG2 := guarded(t, g[cut*channels:], true)
						got := NewSums(channels)
						checks := []func(){checkY1, checkG1, checkY2, checkG2}
						for _, column := range got.columns() {
							inner, check := guarded(t, *column, false)
							*column = inner
							checks = append(checks, check)
						}
						if err := got.Add(y1, g1, cut, workers); err != nil {
							t.Fatal(err)
						}
						if err := got.Add(y2, g2, rows-cut, workers); err != nil {
							t.Fatal(err)
						}
						requireEqual(t, got, want)
						for _, check := range checks {
							check()
						}
					})
				}
			}
		}
	}
}

// NaN and infinities show in AbsY or G2 of their own channel and in no other: the caller's check relies on it.
func TestNonFiniteElementsShowInTheirChannel(t *testing.T) {
	const rows, channels = 9, 40
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		for _, row := range []int{0, 3, 8} {
			y, g := make([]float32, rows*channels), make([]float32, rows*channels)
			y[row*channels+5], g[row*channels+9] = bad, bad
			s := NewSums(channels)
			if err := s.Add(y, g, rows, 3); err != nil {
				t.Fatal(err)
			}
			for c := range channels {
				finiteY := !math.IsNaN(s.AbsY[c]) && !math.IsInf(s.AbsY[c], 0)
				finiteG := !math.IsNaN(s.G2[c]) && !math.IsInf(s.G2[c], 0)
				if finiteY != (c != 5) || finiteG != (c != 9) {
					t.Fatalf("%v in row %d: channel %d has AbsY %v, G2 %v", bad, row, c, s.AbsY[c], s.G2[c])
				}
			}
		}
	}
}

// The largest float32 never overflow the sums, so a non-finite sum always means a non-finite element.
func TestLargestElementsStayFinite(t *testing.T) {
	const rows = 1000
	y, g := make([]float32, rows), make([]float32, rows)
	for i := range y {
		y[i], g[i] = math.MaxFloat32, -math.MaxFloat32
	}
	s := NewSums(1)
	if err := s.Add(y, g, rows, 1); err != nil {
		t.Fatal(err)
	}
	for _, column := range s.columns() {
		if v := (*column)[0]; math.IsInf(v, 0) || math.IsNaN(v) {
			t.Fatalf("a sum of finite elements is %v", v)
		}
	}
}

// A panic of a worker comes back as an error; a bare goroutine would end the process.
func TestAWorkersPanicIsAnError(t *testing.T) {
	s := NewSums(64)
	if err := s.Add(make([]float32, 64), make([]float32, 3), 1, 4); err == nil {
		t.Fatal("a buffer that is too short went unnoticed")
	}
}
