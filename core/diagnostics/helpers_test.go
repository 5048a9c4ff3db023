package diagnostics

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

var toyLayers = []statistics.Layer{
	{Name: "blocks.0.attn", Group: "heads", Units: 6, UnitWidth: 4, Parts: 1},
	{Name: "blocks.0.mlp", Group: "mlp", Rounds: true, Units: 40, UnitWidth: 1, Parts: 1},
}

// scoresOf returns scores of one MLP layer.
func scoresOf(criterion string, score ...float64) criteria.Scores {
	return criteria.Scores{Criterion: criterion, Score: score,
		Layers: []statistics.Layer{
			{
				Name: "blocks.0.mlp", Group: "mlp", Rounds: true, Units: len(score), UnitWidth: 1,
				Parts: 1,
			},
		}}
}

// batch returns the table of a batch. Its sums are small whole numbers, so that any order of adding
// has the same bits; noise 0 makes all batches alike.
func batch(layers []statistics.Layer, seed uint64, noise int) statistics.Table {
	units := statistics.Units(layers)
	r := rand.New(rand.NewPCG(seed, 1))
	floats := func(scale float64) []float64 {
		values := make([]float64, units)
		for u := range values {
			values[u] = scale*float64(1+u%7) + float64(r.IntN(noise+1))
		}
		return values
	}
	ints := func(n int64) []int64 {
		values := make([]int64, units)
		for u := range values {
			values[u] = n
		}
		return values
	}
	fixed := rand.New(rand.NewPCG(0, 1))
	weights := func() []float64 {
		values := make([]float64, units)
		for u := range values {
			values[u] = float64(1 + fixed.IntN(100))
		}
		return values
	}
	return statistics.Table{
		Model: statistics.Model{Name: "toy"}, Layers: layers, Rows: ints(16), Samples: ints(4),
		Batches:  ints(1),
		SumAbsYG: floats(10), SumYG: floats(-3), SumYG2: floats(5), SumAbsY: floats(20),
		SumY: floats(1), SumY2: floats(90), SumG2: floats(8), MaxAbsYG: floats(2),
		Weights: ints(12), SumAbsW: weights(), SumW2: weights(),
		ReaderWeights: ints(6), SumAbsReader: weights(), SumReader2: weights(),
		SumRelativeReader: weights(),
		WeightGradients:   ints(12), SumWG: floats(-4),
		Metadata: map[string]string{},
	}
}

func batches(layers []statistics.Layer, n, noise int) []statistics.Table {
	tables := make([]statistics.Table, n)
	for i := range tables {
		tables[i] = batch(layers, uint64(i), noise)
	}
	return tables
}

// drawScores draws scores of uneven layers; equal scores are common.
func drawScores(t *rapid.T, criterion string, layers []statistics.Layer) criteria.Scores {
	s := criteria.Scores{Criterion: criterion, Layers: layers}
	for range statistics.Units(layers) {
		s.Score = append(s.Score, float64(rapid.IntRange(-5, 5).Draw(t, criterion))/4)
	}
	return s
}

func drawLayers(t *rapid.T) []statistics.Layer {
	var layers []statistics.Layer
	for i := range rapid.IntRange(1, 4).Draw(t, "layers") {
		layers = append(layers, statistics.Layer{
			Name: fmt.Sprintf("blocks.%d", i), Group: "mlp", Rounds: true,
			Units: rapid.IntRange(1, 30).Draw(t, "units"), UnitWidth: 1, Parts: 1,
		})
	}
	return layers
}

func drawRatio(t *rapid.T) float64 {
	return rapid.OneOf(rapid.Float64Range(0.001, 0.999),
		rapid.SampledFrom([]float64{
			0.1, 0.25, 1.0 / 3, 0.5, 0.7, 0.75, 0.9, 0.99,
		})).Draw(t, "ratio")
}

func requireCode(t *testing.T, name string, err error, code fault.Code) {
	t.Helper()
	if err == nil || fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want an error of code %s", name, err, code)
	}
}
