package arrowfile

import (
	"testing"

	"agflow/core/criteria"
	"agflow/core/masking"
	"agflow/core/routing"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

var sampleModel = statistics.Model{Name: "tiny ViT é", MACs: 1_000, Params: 90}

var sampleLayers = []statistics.Layer{
	{Name: "blocks.0.mlp", Group: "mlp", Units: 3, UnitWidth: 1, UnitMACs: 20, UnitParams: 5},
	{Name: "blocks.0.attn", Group: "heads", Units: 2, UnitWidth: 4, UnitMACs: 200, UnitParams: 40},
}

func sampleStatistics() statistics.Table {
	floats := func(first float64) []float64 { return []float64{first, first + 0.1, first + 0.2, first + 0.3, 1e-300} }
	return statistics.Table{
		Model: sampleModel, Layers: sampleLayers,
		Rows: []int64{7, 7, 7, 7, 7}, Samples: []int64{2, 2, 2, 2, 2}, Batches: []int64{1, 1, 1, 1, 1},
		SumAbsYG: floats(1), SumYG: floats(-1), SumYG2: floats(2), SumAbsY: floats(3), SumY: floats(-3), SumY2: floats(4),
		SumG2: floats(5), MaxAbsYG: floats(6), Weights: []int64{0, 0, 0, 8, 8}, SumAbsW: floats(7), SumW2: floats(8),
		Metadata: map[string]string{"agflow.data": "sha256-abc", "agflow.seed": "3"},
	}
}

func sampleScores() criteria.Scores {
	return criteria.Scores{
		Model: sampleModel, Layers: sampleLayers, Criterion: "agf", Seed: 1<<63 + 5, Score: []float64{0.5, 0.25, 0.125, 3, 4},
		Metadata: map[string]string{"agflow.data": "sha256-abc"},
	}
}

func samplePlan() masking.Plan {
	s := sampleScores()
	return masking.Plan{
		Model: s.Model, Layers: s.Layers, Criterion: s.Criterion, Seed: s.Seed, Score: s.Score,
		Keep:     []bool{true, false, false, true, true},
		Request:  masking.Request{PruningRatio: 0.5, RoundTo: 1, Groups: []string{"mlp"}, IgnoredLayers: []string{"blocks.1.*"}},
		Metadata: map[string]string{"agflow.data": "sha256-abc"},
	}
}

func samplePredictions() Predictions {
	return Predictions{
		Label: []int64{0, 1, 2}, Light: []int64{0, 1, 1}, LightPrior: []float32{0.9, 0.5, 0.25}, Heavy: []int64{0, 2, 2},
		Prior: "max_probability", Cost: routing.Cost{Light: 10, Heavy: 100, Shared: 1},
		Metadata: map[string]string{"agflow.data": "sha256-def"},
	}
}

func sampleCurve() []routing.Point {
	return []routing.Point{
		{Threshold: 0, Escalated: 0, Escalation: 0, Accuracy: 0.5, Charged: 0.1, Uncharged: 0.1, RandomAccuracy: 0.5},
		{Threshold: 1, Escalated: 3, Escalation: 1, Accuracy: 0.75, Charged: 1.09, Uncharged: 1, RandomAccuracy: 0.75},
	}
}

// sampleRecords has one record batch of every kind but tensor.
func sampleRecords(t testing.TB, alloc memory.Allocator) map[string]arrow.Record {
	plan, err := PlanToRecord(alloc, samplePlan())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]arrow.Record{
		KindStatistics:  StatisticsToRecord(alloc, sampleStatistics()),
		KindScores:      ScoresToRecord(alloc, sampleScores()),
		KindPlan:        plan,
		KindPredictions: PredictionsToRecord(alloc, samplePredictions()),
		KindCurve:       CurveToRecord(alloc, sampleCurve(), samplePredictions()),
	}
}
