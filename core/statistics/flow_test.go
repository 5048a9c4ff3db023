package statistics

import (
	"math"
	"slices"
	"strings"
	"testing"

	"agflow/core/fault"
)

// Σ|y·g| alone has the bits of the accumulator's column, over several calls.
func TestAddAbsYGEqualsTheAccumulator(t *testing.T) {
	a, sumC := newToy(t, 1), make([]float64, 7)
	for i := range uint64(3) {
		y, g := view(t, 2*i, 9, 7), view(t, 2*i+1, 9, 7)
		add(t, a, 1, 1, y, g)
		must(t, AddAbsYG(sumC, y, g, 2))
	}
	if want := a.Table().SumAbsYG[3:]; !slices.Equal(sumC, want) {
		t.Fatalf("got %v, want %v", sumC, want)
	}
}

func TestAddAbsYGRefusesWithoutATrace(t *testing.T) {
	y, g := view(t, 1, 3, 7), view(t, 2, 3, 7)
	sumC := []float64{1, 2, 3, 4, 5, 6, 7}
	bad := view(t, 1, 3, 7)
	elements(bad)[7*2+4] = float32(math.NaN())
	for name, c := range map[string]struct {
		err  error
		code fault.Code
		text string
	}{
		"sums": {AddAbsYG(sumC[:6], y, g, 1), fault.Shape, "for 6 sums"},
		"rows": {
			AddAbsYG(sumC, y, rowsOf(t, g, 0, 2), 1), fault.Shape, "y [3, 7] and g [2, 7]",
		},
		"dtypes": {AddAbsYG(sumC, y, asFloat64(t, g), 1), fault.Dtype, "float64"},
		"NaN": {
			AddAbsYG(sumC, y, bad, 1), fault.Nonfinite,
			"0 elements of y and 1 of g are not finite, the first NaN in g at row 2, channel 4",
		},
		"overflow": {
			AddAbsYG(sumC[:1], float64s(t, 1, 1, 1e200), float64s(t, 1, 1, 1e200), 1),
			fault.Nonfinite, "exceed float64",
		},
	} {
		if c.err == nil || fault.CodeOf(c.err) != c.code ||
			!strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%s: got %v, want code %s and %q", name, c.err, c.code, c.text)
		}
	}
	if !slices.Equal(sumC, []float64{1, 2, 3, 4, 5, 6, 7}) {
		t.Fatalf("sums were changed to %v", sumC)
	}
}

func TestKernelNameAndReadLimit(t *testing.T) {
	if name := KernelName(); name != "avx2" && name != "portable" {
		t.Fatalf("got %q", name)
	}
	if got := ReadLimit(viewOf(t, []float32{1, 2, -0.5}, 3, 1),
		2); got != 0x3f800000|0x40000000|0xbf000000 {
		t.Fatalf("got %x", got)
	}
}
