package planning

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/fault"
)

// sheet is a grid over 2 and 4 inputs by 3, 6 and 9 outputs. One of its values is below that of a
// smaller size.
func sheet() LatencyTable {
	t := LatencyTable{Model: "toy", ModelMS: 10}
	for i, ms := range []float64{1, 2, 3, 5, 6, 5.5} {
		t.Kind, t.Rows = append(t.Kind, "linear"), append(t.Rows, 7)
		t.Shape = append(t.Shape, "linear 7x4x9")
		t.Inputs = append(t.Inputs, []int64{2, 4}[i/3])
		t.Outputs = append(t.Outputs, []int64{3, 6, 9}[i%3])
		t.Heads = append(t.Heads, 0)
		t.MS = append(t.MS, ms)
	}
	return t
}

func TestInterpolationByHand(t *testing.T) {
	grids, err := sheet().grids()
	if err != nil {
		t.Fatal(err)
	}
	for sizes, want := range map[[3]int64]float64{
		{2, 3}: 1, {4, 6}: 6, {2, 9}: 3,
		{4, 9}: 6,            // not 5.5: a larger size takes no less
		{3, 3}: 3,            // between 1 and 5
		{2, 4}: 1 + 1.0/3,    // a third of the way from 1 to 2
		{3, 6}: 4,            // between 2 and 6
		{3, 7}: 4 + 1.0/6,    // between 4 and 4.5
		{1, 1}: 1, {0, 0}: 1, // as the smallest
		{4, 0}: 5, {1, 9}: 3,
		{5, 99}: 6,
	} {
		if got := grids["linear 7x4x9"].at(sizes); math.Abs(got-want) > 1e-12 {
			t.Errorf("%v: %v ms, want %v", sizes, got, want)
		}
	}
}

// The latency of a pruned model is the dense model's, scaled by the ratio of the products'
// latencies; a removed branch takes none.
func TestLatencyByHand(t *testing.T) {
	c, err := parseCosts(`{"sizes": {"a": 4, "b": 9, "branch": 1}, "products": [
		{"kind": "linear", "name": "fc1", "rows": 7, "inputs": [[1, "a"]], "outputs": [[1, "b"]]},
		{"kind": "linear", "name": "fc2", "rows": 7, "inputs": [[1, "a"]], "outputs": [[1, "b"]],
		 "times": ["branch"]},
		{"kind": "parameters", "name": "p", "outputs": [[1, "b"]]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	latency, err := sheet().bind(c)
	if err != nil {
		t.Fatal(err)
	}
	counts := func(a, b, branch int64) []int64 {
		found := make([]int64, 3)
		found[c.index["a"]], found[c.index["b"]], found[c.index["branch"]] = a, b, branch
		return found
	}
	for _, test := range []struct {
		a, b, branch int64
		ms           float64
	}{{4, 9, 1, 10}, {2, 3, 1, 10.0 / 6}, {4, 9, 0, 5}, {3, 6, 1, 40.0 / 6}} {
		if got := latency(counts(test.a, test.b, test.branch)); math.Abs(got-test.ms) > 1e-12 {
			t.Errorf("%+v: %v ms", test, got)
		}
	}
}

// More of any size never takes less time, whatever was measured.
func TestLatencyNeverFalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := LatencyTable{ModelMS: 1}
		for _, i := range []int64{1, 4, 5} {
			for _, o := range []int64{2, 8} {
				for _, h := range []int64{1, 2, 4} {
					table.Kind, table.Rows = append(table.Kind, "attention"), append(table.Rows, 9)
					table.Shape = append(table.Shape, "attention 9x5x8x4")
					table.Inputs, table.Outputs = append(table.Inputs, i), append(table.Outputs, o)
					table.Heads = append(table.Heads, h)
					table.MS = append(table.MS, rapid.Float64Range(0.1, 10).Draw(t, "ms"))
				}
			}
		}
		grids, err := table.grids()
		if err != nil {
			t.Fatal(err)
		}
		draw := func() (s [3]int64) {
			for axis := range s {
				s[axis] = rapid.Int64Range(0, 9).Draw(t, "size")
			}
			return s
		}
		small, large := draw(), draw()
		for axis := range small {
			large[axis] += small[axis]
		}
		g := grids["attention 9x5x8x4"]
		if g.at(small) > g.at(large)*(1+1e-12) {
			t.Fatalf("%v takes %v ms and %v takes %v", small, g.at(small), large, g.at(large))
		}
	})
}

func TestLatencyTablesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*LatencyTable)
		code   fault.Code
		says   string
	}{
		"columns": {
			func(t *LatencyTable) { t.Heads = t.Heads[1:] }, fault.Shape, "5 and 6 entries",
		},
		"no model time": {func(t *LatencyTable) { t.ModelMS = 0 }, fault.Value, "takes 0 ms"},
		"model time NaN": {
			func(t *LatencyTable) { t.ModelMS = math.NaN() }, fault.Value, "takes NaN ms",
		},
		"other kind": {
			func(t *LatencyTable) { t.Kind[1] = "norm" }, fault.Value,
			`row 1 of the latency table has shape "linear 7x4x9"`,
		},
		"other rows":   {func(t *LatencyTable) { t.Rows[1] = 8 }, fault.Value, "8 rows"},
		"size below 0": {func(t *LatencyTable) { t.Inputs[2] = -1 }, fault.Value, "-1 inputs"},
		"no time":      {func(t *LatencyTable) { t.MS[2] = 0 }, fault.Nonfinite, "has 0 ms"},
		"time NaN": {
			func(t *LatencyTable) { t.MS[2] = math.NaN() }, fault.Nonfinite, "has NaN ms",
		},
		"time infinite": {
			func(t *LatencyTable) { t.MS[2] = math.Inf(1) }, fault.Nonfinite, "has +Inf ms",
		},
		"a cell is twice": {
			func(t *LatencyTable) { t.Outputs[1] = 3 }, fault.Shape,
			"not a full grid of 2 inputs by 3 outputs by 1 heads",
		},
		"a cell lacks": {
			func(t *LatencyTable) { t.Inputs[1] = 3 }, fault.Shape, "not a full grid of 3 inputs",
		},
	} {
		table := sheet()
		c.change(&table)
		if err := table.Validate(); err == nil || fault.CodeOf(err) != c.code ||
			!strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want code %s saying %q", name, err, c.code, c.says)
		}
	}
}

// A table that lacks a shape of the model, or a size of it, is refused; the error has the shape,
// the product and the cure.
func TestOtherModelsTablesAreRefused(t *testing.T) {
	c, err := parseCosts(`{"sizes": {"a": 4}, "products": [
		{"kind": "linear", "name": "fc1", "rows": 7, "inputs": [[1, "a"]], "outputs": [[9]]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	short := sheet()
	for i := range short.Outputs {
		short.Outputs[i] = 1 + int64(i%3)
	}
	missing := sheet()
	for i := range missing.Shape {
		missing.Shape[i] = "linear 7x4x8"
	}
	for says, table := range map[string]LatencyTable{
		`no shape "linear 7x4x9", which "fc1" needs; measure this model with ` +
			"`agflow bench layers --model`": missing,
		`up to outputs 3, less than the 9 of the dense "fc1"`: short,
	} {
		if _, err := table.bind(c); fault.CodeOf(err) != fault.Value ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}
