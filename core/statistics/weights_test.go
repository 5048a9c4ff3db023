package statistics

import (
	"math"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// weightsOf returns the table of a layer of two units of one channel after the given steps.
func weightsOf(t *testing.T, steps func(*Accumulator)) Table {
	t.Helper()
	a, err := NewAccumulator(toyModel,
		[]Layer{{Name: "mlp", Group: "mlp", Rounds: true, Units: 2, UnitWidth: 1, Parts: 1}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	steps(a)
	return a.Table()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A reader counts among all weights and by itself, each element also relative to its row; a row of
// zeros adds nothing.
func TestReadersBySmallNumbers(t *testing.T) {
	table := weightsOf(t, func(a *Accumulator) {
		// makers: rows are units
		must(t, a.AddWeight(0, 0, viewOf(t, []float32{1, -2, 3, 4, 5, -6}, 2, 3)))
		// readers: columns are units
		must(t, a.AddWeight(0, 1, viewOf(t, []float32{1, -3, 0, 0, 2, 2, -4, 0}, 4, 2)))
	})
	for name, c := range map[string]struct {
		got  []float64
		want [2]float64
	}{
		"all":      {table.SumAbsW, [2]float64{6 + 7, 15 + 5}},
		"squares":  {table.SumW2, [2]float64{14 + 21, 77 + 13}},
		"readers":  {table.SumAbsReader, [2]float64{7, 5}},
		"squares2": {table.SumReader2, [2]float64{21, 13}},
		"relative": {table.SumRelativeReader, [2]float64{0.25 + 0.5 + 1, 0.75 + 0.5}},
	} {
		if c.got[0] != c.want[0] || c.got[1] != c.want[1] {
			t.Errorf("%s: got %v, want %v", name, c.got, c.want)
		}
	}
	if table.Weights[0] != 7 || table.ReaderWeights[1] != 4 || table.WeightGradients[0] != 0 {
		t.Errorf("counts %v, %v, %v", table.Weights, table.ReaderWeights, table.WeightGradients)
	}
}

// Σ w·∂L/∂w goes to the unit that the row (axis 0) or the column (axis 1) belongs to, whatever the
// dtypes.
func TestWeightGradientsBySmallNumbers(t *testing.T) {
	// 1 2 -1; 0.5 0 3
	elements := []tensor.BFloat16{0x3f80, 0x4000, 0xbf80, 0x3f00, 0, 0x4040}
	halves, err := tensor.NewView(elements, 2, 3)
	must(t, err)
	table := weightsOf(t, func(a *Accumulator) {
		must(t, a.AddWeightGradient(0, 0, viewOf(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3), halves))
		must(t,
			a.AddWeightGradient(0, 1, viewOf(t, []float32{1, 10}, 1, 2),
				viewOf(t, []float32{-2, 2}, 1, 2)))
	})
	if table.SumWG[0] != 1+4-3-2 || table.SumWG[1] != 2+18+20 || table.WeightGradients[0] != 4 {
		t.Fatalf("got %v of %v", table.SumWG, table.WeightGradients)
	}
}

// A refused weight or gradient is named, and changes nothing.
func TestWeightRefusals(t *testing.T) {
	good := viewOf(t, []float32{1, 2, 3, 4}, 2, 2)
	bad := viewOf(t, []float32{1, 2, float32(math.NaN()), 4}, 2, 2)
	wide := viewOf(t, make([]float32, 6), 2, 3)
	table := weightsOf(t, func(a *Accumulator) {
		for name, c := range map[string]struct {
			err  error
			code fault.Code
			says string
		}{
			"layer": {
				a.AddWeightGradient(1, 0, good, good), fault.Layer, "layer number 1",
			},
			"axis": {a.AddWeightGradient(0, 2, good, good), fault.Value, "unit axis 2"},
			"weight shape": {
				a.AddWeightGradient(0, 1, wide, wide), fault.Shape, "a weight [2, 3]",
			},
			"gradient shape": {
				a.AddWeightGradient(0, 0, good, wide), fault.Shape, "a gradient [2, 3]",
			},
			"weight NaN": {a.AddWeight(0, 0, bad), fault.Nonfinite, "a weight of layer"},
			"gradient NaN": {
				a.AddWeightGradient(0, 0, good, bad), fault.Nonfinite, "a weight gradient of layer",
			},
		} {
			if c.err == nil || fault.CodeOf(c.err) != c.code ||
				!strings.Contains(c.err.Error(), c.says) {
				t.Errorf("%s: got %v", name, c.err)
			}
		}
	})
	if table.Weights[0] != 0 || table.SumWG[0] != 0 || table.SumAbsW[1] != 0 {
		t.Errorf("a refused weight left %v, %v, %v", table.Weights, table.SumWG, table.SumAbsW)
	}
}
