package statistics

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// reference fills the columns of one layer from their definitions, in float64: a chain of rows per
// channel, then the channels of a unit in order.
func reference(t *Table, layer, samples, batches int, y, g tensor.View) {
	l, offset := t.Layers[layer], Offsets(t.Layers)[layer]
	for u := range l.Units {
		at := offset + u
		t.Rows[at], t.Samples[at], t.Batches[at] = int64(y.Rows()), int64(samples), int64(batches)
		for c := u * l.UnitWidth; c < (u+1)*l.UnitWidth; c++ {
			var absYG, yg, yg2, absY, sumY, y2, g2 float64
			for r := range y.Rows() {
				a, b := y.Row(r, nil)[c], g.Row(r, nil)[c]
				p := float64(a * b)
				absYG += math.Abs(p)
				yg += p
				yg2 += float64(p * p)
				absY += math.Abs(a)
				sumY += a
				y2 += float64(a * a)
				g2 += float64(b * b)
				t.MaxAbsYG[at] = max(t.MaxAbsYG[at], math.Abs(p))
			}
			t.SumAbsYG[at] += absYG
			t.SumYG[at] += yg
			t.SumYG2[at] += yg2
			t.SumAbsY[at] += absY
			t.SumY[at] += sumY
			t.SumY2[at] += y2
			t.SumG2[at] += g2
		}
	}
}

// Table has the bits of the float64 definition for channels and for heads, for any workers and
// split into batches.
func TestTableHasTheBitsOfTheDefinition(t *testing.T) {
	const rows, samples = 20, 4
	y := []tensor.View{view(t, 1, rows, 12), view(t, 2, rows, 7)}
	g := []tensor.View{view(t, 3, rows, 12), view(t, 4, rows, 7)}
	for _, workers := range []int{1, 2, 3, 7, 16} {
		for _, size := range []int{20, 10, 5} {
			t.Run(fmt.Sprintf("workers=%d/batch=%d", workers, size), func(t *testing.T) {
				a := newToy(t, workers)
				want := newTable(toyModel, toyLayers)
				for layer := range toyLayers {
					for lo := 0; lo < rows; lo += size {
						add(t, a, layer, samples*size/rows, rowsOf(t, y[layer], lo, lo+size),
							rowsOf(t, g[layer], lo, lo+size))
					}
					reference(&want, layer, samples, rows/size, y[layer], g[layer])
				}
				requireEqual(t, a.Table(), want)
			})
		}
	}
}

// Weight sums run over the unit's rows or columns, several matrices are added, and heads sum over
// their channels.
func TestWeightSums(t *testing.T) {
	a := newToy(t, 1)
	// rows are the units
	mlp1 := viewOf(t, []float32{1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12, 13, -14}, 7, 2)
	// columns are
	mlp2 := viewOf(t, []float32{1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1}, 2, 7)
	heads := viewOf(t, make([]float32, 24), 2, 12)
	for i := range elements(heads) {
		elements(heads)[i] = float32(i)
	}
	for _, w := range []struct {
		layer, axis int
		w           tensor.View
	}{{1, 0, mlp1}, {1, 1, mlp2}, {0, 1, heads}} {
		if err := a.AddWeight(w.layer, w.axis, w.w); err != nil {
			t.Fatal(err)
		}
	}
	got := a.Table()
	// unit 2 of the MLP: 5, -6 | 3, -1; head 1: columns 4 to 7 of both rows.
	if at := 3 + 2; got.SumAbsW[at] != 15 || got.SumW2[at] != 25+36+9+1 || got.Weights[at] != 4 {
		t.Fatalf("MLP unit 2: %v, %v, %d", got.SumAbsW[at], got.SumW2[at], got.Weights[at])
	}
	if got.SumAbsW[1] != 4+5+6+7+16+17+18+19 || got.SumW2[1] != 16+25+36+49+256+289+324+361 ||
		got.Weights[1] != 8 {
		t.Fatalf("head 1: %v, %v, %d", got.SumAbsW[1], got.SumW2[1], got.Weights[1])
	}
	if got.Rows[1] != 0 || got.SumAbsYG[1] != 0 {
		t.Fatal("weights changed the sums of activations")
	}
}

// A batch with a single non-finite element, wherever it is, leaves the sums unchanged, and the
// error has its position.
func TestNonFiniteBatchesLeaveNoTrace(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, workers := range []int{1, 3} {
		a := newToy(t, workers)
		add(t, a, 1, 2, view(t, 1, 6, 7), view(t, 2, 6, 7))
		before := a.Table()
		for row := range 6 {
			for channel := range 7 {
				for _, bad := range []float32{nan, inf} {
					y, g := view(t, 5, 6, 7), view(t, 6, 6, 7)
					elements(y)[7*row+channel] = bad
					requireCode(t, a.Add(1, 2, y, g), fault.Nonfinite)
					requireCode(t, a.Add(1, 2, g, y), fault.Nonfinite)
					requireEqual(t, a.Table(), before)
				}
			}
		}
	}
}

func TestNonFiniteErrorText(t *testing.T) {
	a := newToy(t, 1)
	add(t, a, 1, 2, view(t, 1, 6, 7), view(t, 2, 6, 7))
	y, g := view(t, 1, 6, 7), view(t, 2, 6, 7)
	elements(y)[7*4+1], elements(y)[7*3+2] = float32(math.NaN()), float32(math.Inf(1))
	elements(g)[7*3+6] = float32(math.NaN())
	err := a.Add(1, 2, y, g)
	want := `agflow:nonfinite: layer "blocks.0.mlp", batch 1: 2 elements of y and 1 of g are not ` +
		`finite, the first +Inf in y at row 3, channel 2; look for an overflow in the model or ` +
		`its input, or leave this batch out`
	if err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	if err = a.Add(1, 2, view(t, 1, 6, 7), g); err == nil ||
		!strings.Contains(err.Error(),
			"0 elements of y and 1 of g are not finite, the first NaN in g at row 3, channel 6") {
		t.Fatalf("got %v", err)
	}
	w := view(t, 1, 7, 3)
	elements(w)[3*6+2] = float32(math.NaN())
	want = `a weight of layer "blocks.0.mlp" has 1 non-finite elements, the first NaN at row 6, ` +
		`channel 2`
	if err = a.AddWeight(1, 0, w); err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v", err)
	}
}

// Every refused call has its code and leaves the sums as they were.
func TestRefusedCallsLeaveNoTrace(t *testing.T) {
	a := newToy(t, 2)
	add(t, a, 0, 1, view(t, 1, 5, 12), view(t, 2, 5, 12))
	before := a.Table()
	y, g := view(t, 1, 5, 7), view(t, 2, 5, 7)
	bad := view(t, 1, 7, 3)
	elements(bad)[0] = float32(math.Inf(1))
	for name, c := range map[string]struct {
		err  error
		code fault.Code
	}{
		"layer below":       {a.Add(-1, 1, y, g), fault.Layer},
		"layer above":       {a.Add(2, 1, y, g), fault.Layer},
		"other layer's":     {a.Add(0, 1, y, g), fault.Shape},
		"rows differ":       {a.Add(1, 1, y, rowsOf(t, g, 0, 4)), fault.Shape},
		"g channels":        {a.Add(1, 1, y, view(t, 2, 5, 12)), fault.Shape},
		"empty view":        {a.Add(1, 0, tensor.View{}, tensor.View{}), fault.Shape},
		"dtypes differ":     {a.Add(1, 1, y, asFloat64(t, g)), fault.Dtype},
		"no samples":        {a.Add(1, 0, y, g), fault.Value},
		"more than rows":    {a.Add(1, 6, y, g), fault.Value},
		"negative samples":  {a.Add(1, -1, y, g), fault.Value},
		"weight layer":      {a.AddWeight(2, 0, view(t, 1, 7, 3)), fault.Layer},
		"weight axis":       {a.AddWeight(1, 2, view(t, 1, 7, 3)), fault.Value},
		"weight transposed": {a.AddWeight(1, 1, view(t, 1, 7, 3)), fault.Shape},
		"weight non-finite": {a.AddWeight(1, 0, bad), fault.Nonfinite},
	} {
		if c.err == nil || fault.CodeOf(c.err) != c.code {
			t.Errorf("%s: got %v, want code %s", name, c.err, c.code)
		}
	}
	requireEqual(t, a.Table(), before)
}

func TestABatchWithoutRowsChangesNothing(t *testing.T) {
	a := newToy(t, 1)
	add(t, a, 1, 0, viewOf(t, nil, 0, 7), viewOf(t, nil, 0, 7))
	requireEqual(t, a.Table(), newTable(toyModel, toyLayers))
}

// A table is a copy: later batches do not change it.
func TestTableIsACopy(t *testing.T) {
	a := newToy(t, 1)
	before := a.Table()
	add(t, a, 1, 1, view(t, 1, 5, 7), view(t, 2, 5, 7))
	before.Layers[0].Name = "changed"
	requireEqual(t, newToy(t, 1).Table(), newTable(toyModel, toyLayers))
	if a.Table().Layers[0].Name == "changed" || before.Rows[3] != 0 {
		t.Fatal("a table shares memory with its accumulator")
	}
}

func TestAccumulatorRefusesImpossibleLayers(t *testing.T) {
	ok := toyLayers[1]
	with := func(change func(*Layer)) []Layer {
		l := ok
		l.Name = "other"
		change(&l)
		return []Layer{ok, l}
	}
	for name, c := range map[string]struct {
		layers []Layer
		code   fault.Code
	}{
		"none":      {nil, fault.Empty},
		"no name":   {with(func(l *Layer) { l.Name = "" }), fault.Layer},
		"twice":     {with(func(l *Layer) { l.Name = ok.Name }), fault.Layer},
		"group":     {with(func(l *Layer) { l.Group = "" }), fault.Value},
		"units":     {with(func(l *Layer) { l.Units = 0 }), fault.Shape},
		"width":     {with(func(l *Layer) { l.UnitWidth = -1 }), fault.Shape},
		"overflow":  {with(func(l *Layer) { l.Units, l.UnitWidth = 1<<40, 1<<40 }), fault.Shape},
		"too many":  {with(func(l *Layer) { l.Units = maxChannels }), fault.Shape},
		"no parts":  {with(func(l *Layer) { l.Parts = 0 }), fault.Shape},
		"uneven":    {with(func(l *Layer) { l.Units, l.Parts = 8, 3 }), fault.Shape},
		"MACs":      {with(func(l *Layer) { l.UnitMACs = -1 }), fault.Value},
		"parameter": {with(func(l *Layer) { l.UnitParams = -1 }), fault.Value},
	} {
		if _, err := NewAccumulator(toyModel, c.layers, 1); err == nil ||
			fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v, want code %s", name, err, c.code)
		}
	}
	_, err := NewAccumulator(toyModel, toyLayers, 0)
	requireCode(t, err, fault.Value)
}
