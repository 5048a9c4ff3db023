package statistics

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// wholeNumbers returns a matrix of small whole numbers: their sums are exact, so that tables of any
// split are equal.
func wholeNumbers(t *testing.T, seed uint64, rows, channels int) tensor.View {
	r := rand.New(rand.NewPCG(seed, 2))
	data := make([]float32, rows*channels)
	for i := range data {
		data[i] = float32(r.IntN(17) - 8)
	}
	return viewOf(t, data, rows, channels)
}

func tableOf(t *testing.T, fingerprint string, batches ...[2]tensor.View) Table {
	t.Helper()
	a := newToy(t, 1)
	for _, b := range batches {
		add(t, a, 1, 2, b[0], b[1])
	}
	table := a.Table()
	if fingerprint != "" {
		table.Metadata[DataKey] = fingerprint
	}
	return table
}

// Merged shards equal one run over all batches, counts and maxima included.
func TestMergeEqualsOneRun(t *testing.T) {
	var batches [][2]tensor.View
	for i := range uint64(6) {
		batches = append(batches, [2]tensor.View{
			wholeNumbers(t, 2*i, 9, 7), wholeNumbers(t, 2*i+1, 9, 7),
		})
	}
	want := tableOf(t, "a+b+c", batches...)
	got, err := Merge(tableOf(t, "a", batches[:1]...), tableOf(t, "b", batches[1:4]...),
		tableOf(t, "c", batches[4:]...))
	if err != nil {
		t.Fatal(err)
	}
	requireEqual(t, got, want)
}

// Sums are added in the given order: merging step by step has the same bits, and stays close to one
// run.
func TestMergeAddsInTheGivenOrder(t *testing.T) {
	var tables []Table
	for i := range uint64(4) {
		tables = append(tables,
			tableOf(t, "", [2]tensor.View{view(t, 2*i, 9, 7), view(t, 2*i+1, 9, 7)}))
	}
	all, err := Merge(tables...)
	if err != nil {
		t.Fatal(err)
	}
	stepwise := tables[0]
	for _, next := range tables[1:] {
		if stepwise, err = Merge(stepwise, next); err != nil {
			t.Fatal(err)
		}
	}
	requireEqual(t, stepwise, all)
	for u := range all.SumYG {
		want := tables[0].SumYG[u] + tables[1].SumYG[u] + tables[2].SumYG[u] + tables[3].SumYG[u]
		if all.SumYG[u] != want {
			t.Fatalf("unit %d: got %v, want %v", u, all.SumYG[u], want)
		}
	}
}

// Weights count once; metadata is the first's, with the fingerprints joined and absent ones left
// out.
func TestMergeKeepsWeightsAndMetadataOfTheFirst(t *testing.T) {
	make3 := func(fingerprint, seed string) Table {
		a := newToy(t, 1)
		if err := a.AddWeight(1, 0, wholeNumbers(t, 1, 7, 3)); err != nil {
			t.Fatal(err)
		}
		table := a.Table()
		table.Metadata["agflow.seed"] = seed
		if fingerprint != "" {
			table.Metadata[DataKey] = fingerprint
		}
		return table
	}
	first := make3("", "1")
	got, err := Merge(first, make3("x", "2"), make3("", "3"), make3("y", "4"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Metadata["agflow.seed"] != "1" || got.Metadata[DataKey] != "x+y" {
		t.Fatalf("metadata is %v", got.Metadata)
	}
	if got.Weights[4] != 3 || got.SumW2[4] != first.SumW2[4] {
		t.Fatal("weights were counted more than once")
	}
	if _, touched := first.Metadata[DataKey]; touched {
		t.Fatal("the first table's metadata was changed")
	}
}

// Skipped batches are added layer by layer; where none were, the key is absent.
func TestMergeAddsSkippedBatches(t *testing.T) {
	skipped := func(text string) Table {
		table := tableOf(t, "")
		if text != "" {
			table.Metadata[SkippedKey] = text
		}
		return table
	}
	got, err := Merge(skipped(""), skipped(`{"b": 2, "a": 1}`), skipped(""), skipped(`{"b":1}`))
	if err != nil || got.Metadata[SkippedKey] != `{"a":1,"b":3}` {
		t.Fatalf("got %v, %v", got.Metadata, err)
	}
	if got, err = Merge(skipped(""), skipped("")); err != nil || len(got.Metadata) != 0 {
		t.Fatalf("got %v, %v", got.Metadata, err)
	}
	_, err = Merge(skipped(""), skipped("[1]"))
	requireCode(t, err, fault.Value)
}

func TestMergeRefusesTablesThatDoNotBelongTogether(t *testing.T) {
	_, err := Merge()
	requireCode(t, err, fault.Empty)
	_, err = Merge(Table{Model: toyModel})
	requireCode(t, err, fault.Empty)
	for name, c := range map[string]struct {
		change func(*Table)
		code   fault.Code
		names  string
	}{
		"model": {func(m *Table) { m.Model.Name = "other" }, fault.Value, `"other"`},
		"MACs":  {func(m *Table) { m.Model.MACs++ }, fault.Value, "1001 MACs"},
		"layer": {func(m *Table) { m.Layers[1].UnitMACs++ }, fault.Layer, "blocks.0.mlp"},
		"order": {
			func(m *Table) {
				m.Layers[0].Name, m.Layers[1].Name = m.Layers[1].Name, m.Layers[0].Name
			},
			fault.Layer, "blocks.0.mlp",
		},
		"weights": {
			func(m *Table) { m.SumW2[4] = 1 }, fault.Value, `unit 1 of layer "blocks.0.mlp"`,
		},
		"count": {
			func(m *Table) { m.Weights[0] = 1 }, fault.Value, `unit 0 of layer "blocks.0.attn"`,
		},
		"short":      {func(m *Table) { m.SumY = m.SumY[:3] }, fault.Shape, "sum_y"},
		"negative":   {func(m *Table) { m.Rows[9] = -1 }, fault.Value, "rows"},
		"non-finite": {func(m *Table) { m.SumG2[9] = math.Inf(1) }, fault.Nonfinite, "sum_g2"},
		"counts":     {func(m *Table) { m.Samples[9] = math.MaxInt64 }, fault.Value, "samples"},
		"overflow":   {func(m *Table) { m.SumY2[9] = math.MaxFloat64 }, fault.Nonfinite, "sum_y2"},
		"fewer": {
			func(m *Table) { *m = newTable(toyModel, toyLayers[:1]) }, fault.Layer, "1 layers",
		},
	} {
		first := tableOf(t, "")
		first.Samples[9], first.SumY2[9] = 1, math.MaxFloat64
		other := tableOf(t, "")
		c.change(&other)
		_, err := Merge(first, other)
		if err == nil || fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: got %v, want code %s naming %s", name, err, c.code, c.names)
		}
	}
}
