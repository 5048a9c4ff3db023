package statistics

import (
	"math"
	"slices"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// deviceSums are the eight sums of a batch, as a device computes them.
func deviceSums(y, g tensor.View) []float64 {
	n := y.Channels()
	sums := make([]float64, 8*n)
	for r := range y.Rows() {
		for c := range n {
			a, b := y.Row(r, nil)[c], g.Row(r, nil)[c]
			p := a * b
			for k, v := range []float64{math.Abs(p), p, p * p, math.Abs(a), a, a * a, b * b} {
				sums[k*n+c] += v
			}
			sums[7*n+c] = max(sums[7*n+c], math.Abs(p))
		}
	}
	return sums
}

// AddSums equals Add of the batches: equal tables where all sums are exact.
func TestAddSumsEqualsAdd(t *testing.T) {
	direct, fromSums := newToy(t, 1), newToy(t, 1)
	for i := range uint64(3) {
		y, g := wholeNumbers(t, 2*i, 9, 12), wholeNumbers(t, 2*i+1, 9, 12)
		add(t, direct, 0, 3, y, g)
		must(t, fromSums.AddSums(0, 3, 9, float64s(t, 8, 12, deviceSums(y, g)...)))
	}
	must(t, fromSums.AddSums(0, 0, 0, float64s(t, 8, 12, make([]float64, 96)...)))
	requireEqual(t, fromSums.Table(), direct.Table())
}

// Refused sums change nothing, and the error has the name of the sum.
//
// The function is long because of its table of cases.
func TestAddSumsRefuses(t *testing.T) {
	a := newToy(t, 1)
	must(t, a.AddSums(1, 1, 2, float64s(t, 8, 7, slices.Repeat([]float64{1}, 56)...)))
	before := a.Table()
	with := func(row, channel int, v float64) tensor.View {
		sums := make([]float64, 56)
		sums[7*row+channel] = v
		return float64s(t, 8, 7, sums...)
	}
	ok := with(0, 0, 1)
	for name, c := range map[string]struct {
		err  error
		code fault.Code
		text string
	}{
		"layer": {a.AddSums(2, 1, 2, ok), fault.Layer, "layer number 2"},
		"rows of sums": {
			a.AddSums(1, 1, 2, float64s(t, 7, 7, make([]float64, 49)...)), fault.Shape, "[7, 7]",
		},
		"channels": {a.AddSums(0, 1, 2, ok), fault.Shape, "must be [8, 12]"},
		"dtype": {
			a.AddSums(1, 1, 2, viewOf(t, make([]float32, 56), 8, 7)), fault.Dtype, "float32",
		},
		"samples":       {a.AddSums(1, 3, 2, ok), fault.Value, "3 samples in 2 rows"},
		"no samples":    {a.AddSums(1, 0, 2, ok), fault.Value, "0 samples"},
		"negative rows": {a.AddSums(1, -1, -1, ok), fault.Value, "-1 rows"},
		"NaN": {
			a.AddSums(1, 1, 2, with(4, 6, math.NaN())), fault.Nonfinite,
			`layer "blocks.0.mlp", batch 1: the sum y is NaN at channel 6`,
		},
		"infinite": {
			a.AddSums(1, 1, 2, with(7, 0, math.Inf(1))), fault.Nonfinite, "max_abs_yg is +Inf",
		},
		"negative": {
			a.AddSums(1, 1, 2, with(2, 3, -1)), fault.Value, "yg2 is -1 at channel 3",
		},
		"sum exceeds it": {
			addTwice(a, with(0, 2, math.MaxFloat64)), fault.Nonfinite, "exceed float64",
		},
	} {
		if c.err == nil || fault.CodeOf(c.err) != c.code ||
			!strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%s: got %v, want code %s and %q", name, c.err, c.code, c.text)
		}
	}
	// Signed sums may be negative. The batch that exceeded float64 with the one before left that
	// one alone.
	must(t, a.AddSums(1, 1, 2, with(1, 3, -1)))
	after := a.Table()
	if after.Batches[3] != before.Batches[3]+2 || after.SumYG[3+3] != before.SumYG[3+3]-1 ||
		after.SumYG2[3+3] != before.SumYG2[3+3] {
		t.Fatalf("got\n%+v\nbefore\n%+v", after, before)
	}
}

func addTwice(a *Accumulator, sums tensor.View) error {
	if err := a.AddSums(1, 1, 2, sums); err != nil {
		return nil
	}
	return a.AddSums(1, 1, 2, sums)
}
