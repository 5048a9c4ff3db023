package diagnostics

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

func stability(t *testing.T, tables []statistics.Table, r StabilityRequest) StabilityReport {
	t.Helper()
	report, err := Stability(tables, r)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// Any draw of equal batches keeps the same units as all batches, by every criterion.
func TestEqualBatchesAreStable(t *testing.T) {
	tables := batches(toyLayers, 5, 0)
	for _, name := range criteria.Names() {
		report := stability(t, tables, StabilityRequest{
			Criterion: name, PruningRatio: 0.5, Sizes: []int{1, 7}, Draws: 10,
		})
		for _, s := range report.Sizes {
			if want := (Spread{1, 1, 1}); s.Overall != want || s.Layers[0].Spread != want ||
				s.Layers[1].Spread != want {
				t.Errorf("%s, size %d: got %+v", name, s.Size, s)
			}
		}
	}
}

// Draws of more batches keep units more similar to those of all batches; one noisy batch keeps
// different ones.
func TestMoreBatchesAreMoreStable(t *testing.T) {
	report := stability(t, batches(toyLayers, 40, 200), StabilityRequest{
		Criterion: "agf", PruningRatio: 0.5, Sizes: []int{1, 10, 100}, Draws: 60, Seed: 1,
	})
	one, ten, hundred := report.Sizes[0].Overall, report.Sizes[1].Overall, report.Sizes[2].Overall
	rising := one.Mean < ten.Mean && ten.Mean < hundred.Mean
	if !rising || !(one.P5 < one.Mean && one.Mean < one.P95) {
		t.Errorf("got %+v, %+v, %+v", one, ten, hundred)
	}
	if report.Batches != 40 || report.Draws != 60 || report.Criterion != "agf" ||
		report.PruningRatio != 0.5 || report.Seed != 1 || report.Sizes[2].Size != 100 {
		t.Errorf("got %+v", report)
	}
}

// Equal requests give equal reports, the result of a size does not depend on the other sizes, and
// tables stay as they are.
func TestStabilityIsDeterministic(t *testing.T) {
	tables := batches(toyLayers, 8, 100)
	r := StabilityRequest{
		Criterion: "fisher", PruningRatio: 0.4, Sizes: []int{2, 5}, Draws: 20, Seed: 9,
	}
	first := stability(t, tables, r)
	if again := stability(t, tables, r); !reflect.DeepEqual(first, again) {
		t.Errorf("%+v, then %+v", first, again)
	}
	if !reflect.DeepEqual(tables, batches(toyLayers, 8, 100)) {
		t.Error("the tables were changed")
	}
	r.Sizes = []int{5}
	if alone := stability(t, tables, r); !reflect.DeepEqual(alone.Sizes[0], first.Sizes[1]) {
		t.Errorf("%+v alone, %+v beside another", alone.Sizes[0], first.Sizes[1])
	}
	r.Seed = 10
	if other := stability(t, tables, r); reflect.DeepEqual(other.Sizes[0], first.Sizes[1]) {
		t.Error("another seed drew the same")
	}
}

// A resample equals the merge of the batches drawn, each as often as it was drawn.
func TestResampleEqualsMerge(t *testing.T) {
	tables := batches(toyLayers, 6, 100)
	all, err := statistics.Merge(tables...)
	if err != nil {
		t.Fatal(err)
	}
	drawn := statistics.NewResample(all)
	rapid.Check(t, func(t *rapid.T) {
		times := drawBatches(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)), 6,
			rapid.IntRange(1, 12).Draw(t, "size"))
		var repeated []statistics.Table
		for i, table := range tables {
			for range times[i] {
				repeated = append(repeated, table)
			}
		}
		want, err := statistics.Merge(repeated...)
		if err != nil {
			t.Fatal(err)
		}
		drawn.Fill(tables, times)
		if !reflect.DeepEqual(drawn.Table, want) {
			t.Fatalf("drawn %v: got\n%+v\nwant\n%+v", times, drawn.Table, want)
		}
	})
}

// A draw has the requested number of batches, each of them equally likely.
func TestDrawBatches(t *testing.T) {
	generator := rand.New(rand.NewPCG(1, 2))
	seen := make([]int64, 5)
	for range 200 {
		total := int64(0)
		for i, n := range drawBatches(generator, 5, 7) {
			total += n
			seen[i] += n
		}
		if total != 7 {
			t.Fatalf("a draw has %d batches", total)
		}
	}
	if slices.Min(seen) < 200 || slices.Max(seen) > 360 { // 280 expected, deviation 15
		t.Errorf("batches were drawn %v times", seen)
	}
}

func TestSpread(t *testing.T) {
	if got, want := spreadOf([]float64{4, 0, 3, 1, 2}), (Spread{2, 0.2, 3.8}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestStabilityAsJSON(t *testing.T) {
	report := stability(t, batches(toyLayers, 2, 0), StabilityRequest{
		Criterion: "agf", PruningRatio: 0.5, Sizes: []int{1}, Draws: 1,
	})
	text, err := json.Marshal(report)
	want := `{"criterion":"agf","pruning_ratio":0.5,"batches":2,"draws":1,"seed":0,` +
		`"sizes":[{"size":1,"overall":{"mean":1,"p5":1,"p95":1},` +
		`"layers":[{"layer":"blocks.0.attn","mean":1,"p5":1,"p95":1},{"layer":"blocks.0.mlp",` +
		`"mean":1,"p5":1,"p95":1}]}]}`
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v", text, err)
	}
}

// The function is long because of its table of cases.
func TestStabilityRefusals(t *testing.T) {
	good := StabilityRequest{Criterion: "agf", PruningRatio: 0.5, Sizes: []int{1}, Draws: 2}
	tables := batches(toyLayers, 3, 5)
	for name, c := range map[string]struct {
		change func(r *StabilityRequest, tables *[]statistics.Table)
		code   fault.Code
		says   string
	}{
		"ratio": {
			func(r *StabilityRequest, _ *[]statistics.Table) { r.PruningRatio = 1 }, fault.Value,
			"pruning_ratio is 1",
		},
		"one batch": {
			func(_ *StabilityRequest, s *[]statistics.Table) { *s = (*s)[:1] }, fault.Value,
			"1 batches",
		},
		"no draws": {
			func(r *StabilityRequest, _ *[]statistics.Table) { r.Draws = 0 }, fault.Value,
			"0 draws",
		},
		"many draws": {
			func(r *StabilityRequest, _ *[]statistics.Table) { r.Draws = 1 << 40 }, fault.Value,
			"take 1 to 10000",
		},
		"no sizes": {
			func(r *StabilityRequest, _ *[]statistics.Table) { r.Sizes = nil }, fault.Value,
			"no sizes",
		},
		"size 0": {
			func(r *StabilityRequest, _ *[]statistics.Table) { r.Sizes = []int{1, 0} }, fault.Value,
			"0 batches",
		},
		"huge size": {
			func(r *StabilityRequest, _ *[]statistics.Table) { r.Sizes = []int{1 << 40} },
			fault.Value, "take 1 to 100000",
		},
		"unknown": {
			func(r *StabilityRequest, _ *[]statistics.Table) { r.Criterion = "agfs" }, fault.Value,
			"agfs",
		},
		"other model": {
			func(_ *StabilityRequest, s *[]statistics.Table) { (*s)[2].Model.Name = "other" },
			fault.Value, "other",
		},
		"not recorded": {func(r *StabilityRequest, s *[]statistics.Table) {
			r.Criterion = "wanda"
			for i := range *s {
				(*s)[i].ReaderWeights = make([]int64, 46)
			}
		}, fault.Layer, "wanda"},
	} {
		r, s := good, slices.Clone(tables)
		c.change(&r, &s)
		_, err := Stability(s, r)
		requireCode(t, name, err, c.code)
		if err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v does not say %s", name, err, c.says)
		}
	}
}

// 100 batches of the MLP channels and heads of a DeiT-Tiny or a ViT-Base.
func BenchmarkStability(b *testing.B) {
	for _, width := range []int{768, 3072} {
		var layers []statistics.Layer
		for i := range 12 {
			layers = append(layers,
				statistics.Layer{
					Name: fmt.Sprint("attn", i), Group: "heads", Units: width / 256,
					UnitWidth: 64, Parts: 1,
				},
				statistics.Layer{
					Name: fmt.Sprint("mlp", i), Group: "mlp", Rounds: true, Units: width,
					UnitWidth: 1,
					Parts:     1,
				})
		}
		tables := batches(layers, 100, 100)
		b.Run(fmt.Sprint("width ", width), func(b *testing.B) {
			for b.Loop() {
				if _, err := Stability(tables, StabilityRequest{
					Criterion: "agf", PruningRatio: 0.5, Sizes: []int{10, 100}, Draws: 100,
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
