package abi

import (
	"math"
	"testing"

	"agflow/bridge/carrow"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// TestAbsYG proves that Σ|y·g| alone comes back as one array, in memory that the caller gives back.
func TestAbsYG(t *testing.T) {
	c := newCaller(t)
	y, g, out := c.matrix(2, 1, -2, 3, 4), c.matrix(2, 5, 6, -7, 8), c.empty()
	rows, err := AbsYG(1, y.array, y.schema, g.array, g.schema, out.array, out.schema)
	if err != nil || rows != 2 {
		t.Fatal(rows, err)
	}
	c.resultArray(out, func(values arrow.Array) {
		if got := values.(*array.Float64).Float64Values(); !equal(got, []float64{26, 44}) {
			t.Errorf("%v", got)
		}
	})
	if name, err := Kernel(); err != nil || name != "avx2" && name != "portable" {
		t.Error(name, err)
	}
	m := c.matrix(2, 0, 0, 0, 1)
	if bits, err := ReadLimit(1, m.array, m.schema); err != nil || bits == 0 {
		t.Error(bits, err)
	}
}

// TestTopK proves it over more than one word of bits.
func TestTopK(t *testing.T) {
	c := newCaller(t)
	for _, n := range []int{0, 1, 63, 64, 65, 130} {
		scores := make([]float64, n)
		for i := range scores {
			scores[i] = float64(i * 37 % 131)
		}
		in, out, k := c.matrix64(1, scores...), c.empty(), int64(n/2)
		kept, err := TopK(k, 1, in.array, in.schema, out.array, out.schema)
		if err != nil || kept != k || !released(in) {
			t.Fatal(n, kept, err)
		}
		c.resultArray(out, func(values arrow.Array) {
			worst, best := math.Inf(1), math.Inf(-1) // of the kept, of the others
			for i, score := range scores {
				if values.(*array.Boolean).Value(i) {
					worst, k = min(worst, score), k-1
				} else {
					best = max(best, score)
				}
			}
			if values.Len() != n || k != 0 || worst < best {
				t.Errorf("%d scores: %d values, %d fewer than k, a kept %v beside a dropped %v", n,
					values.Len(), k, worst, best)
			}
		})
	}
}

// BenchmarkStatisticsAdd is what one call costs beside its kernel: two rows of two channels.
func BenchmarkStatisticsAdd(b *testing.B) {
	c := newCaller(b)
	id := open(b)
	defer closeSessionOf(b, id)
	y, g := c.matrix(2, 1, 2, 3, 4), c.matrix(2, 5, 6, 7, 8)
	releases := [4]*uintptr{releaseOf(y.array, arrayRelease), releaseOf(y.schema, schemaRelease),
		releaseOf(g.array, arrayRelease), releaseOf(g.schema, schemaRelease)}
	var kept [4]uintptr
	for i, release := range releases {
		kept[i] = *release
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, release := range releases {
			*release = carrow.MarkReleased
		}
		if _, err := StatisticsAdd(id, 0, 1, y.array, y.schema, g.array, g.schema); err != nil {
			b.Fatal(err)
		}
	}
	for i, release := range releases {
		*release = kept[i]
	}
	free(y)
	free(g)
}
