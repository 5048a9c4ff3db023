package tables

import (
	"os"
	"path/filepath"
	"testing"

	"agflow/bridge/internal/samples"
	"agflow/bridge/ipcfile"
	"agflow/core/criteria"
	"agflow/core/planning"
	"agflow/core/routing"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

func sampleStatistics() statistics.Table {
	floats := func(first float64) []float64 {
		return []float64{first, first + 0.1, first + 0.2,
			first + 0.3, 1e-300}
	}
	return statistics.Table{
		Model: samples.Model, Layers: samples.Layers,
		Rows: []int64{7, 7, 7, 7, 7}, Samples: []int64{2, 2, 2, 2, 2},
		Batches:  []int64{1, 1, 1, 1, 1},
		SumAbsYG: floats(1), SumYG: floats(-1), SumYG2: floats(2), SumAbsY: floats(3),
		SumY: floats(-3), SumY2: floats(4),
		SumG2: floats(5), MaxAbsYG: floats(6), Weights: []int64{0, 0, 0, 8, 8}, SumAbsW: floats(7),
		SumW2:         floats(8),
		ReaderWeights: []int64{0, 0, 0, 4, 4}, SumAbsReader: floats(9), SumReader2: floats(10),
		SumRelativeReader: floats(11),
		WeightGradients:   []int64{0, 0, 0, 8, 8}, SumWG: floats(-12),
		Metadata: map[string]string{"agflow.data": "sha256-abc", "agflow.seed": "3"},
	}
}

func bits(values ...bool) routing.Bits {
	return routing.BitsOf(len(values), func(i int) bool { return values[i] })
}

func sampleScores() criteria.Scores {
	return criteria.Scores{
		Model: samples.Model, Layers: samples.Layers, Criterion: "agf", Seed: 1<<63 + 5,
		Score:    []float64{0.5, 0.25, 0.125, 3, 4},
		Metadata: map[string]string{"agflow.data": "sha256-abc"},
	}
}

func samplePlan() planning.Plan {
	s := sampleScores()
	return planning.Plan{
		Model: s.Model, Layers: s.Layers, Criterion: s.Criterion, Seed: s.Seed, Score: s.Score,
		Keep:    []bool{true, false, false, true, true},
		Planned: planning.Price{MACs: 960, Params: 90, LatencyMS: 7.25},
		Request: planning.Request{PruningRatio: 0.5, RoundTo: 1, Groups: []string{"mlp"},
			IgnoredLayers: []string{"blocks.1.*"}},
		Metadata: map[string]string{"agflow.data": "sha256-abc"},
	}
}

func samplePredictions() Predictions {
	return Predictions{
		Label: []int64{0, 1, 2}, Light: []int64{0, 1, 1}, Heavy: []int64{0, 2, 2},
		Ensemble: []int64{0, 1, 0}, LightWeight: 0.375,
		Priors: []routing.Prior{
			{Name: "max_probability", Values: []float32{0.9, 0.5, 0.25}},
			{Name: "entropy_scaled", Values: []float32{-0.1, -2, -3}},
			{Name: "agreement", Values: []float32{1, 0.5, 0}, Cost: 7},
		},
		Temperature: 1.5, Cost: routing.Cost{Light: 10, Heavy: 100, Shared: 1, Unit: routing.MACs},
		Metadata: map[string]string{"agflow.data": "sha256-def", "agflow.images": "01 02",
			"agflow.tuning": "03"},
	}
}

// sampleSamples is what routing sees of samplePredictions.
func sampleSamples() Samples {
	p := samplePredictions()
	return Samples{routing.Samples{
		Priors: p.Priors, LightCorrect: bits(true, true, false),
		HeavyCorrect: bits(true, false, true), Labels: []int64{0, 1, 2}, Heavy: []int64{0, 2, 2},
		EnsembleCorrect: bits(true, true, false),
		LightWeight:     p.LightWeight, Temperature: p.Temperature, Cost: p.Cost,
		Images: "01 02", Tuning: "03",
	}, p.Metadata}
}

func sampleCurve() []routing.Point {
	return []routing.Point{
		{Threshold: 0, Escalated: 0, Escalation: 0, Accuracy: 0.5, Charged: 0.1, Uncharged: 0.1,
			RandomAccuracy: 0.5},
		{Threshold: 1, Escalated: 3, Escalation: 1, Accuracy: 0.75, Charged: 1.09, Uncharged: 1,
			RandomAccuracy:     0.75,
			EscalationInterval: routing.Interval{0.5, 1},
			AccuracyInterval:   routing.Interval{0.25, 0.8},
			ChargedInterval:    routing.Interval{0.6, 1.1},
			UnchargedInterval:  routing.Interval{0.7, 1},
			RandomInterval:     routing.Interval{0.2, 0.9}},
	}
}

func sampleLatency() planning.LatencyTable {
	return planning.LatencyTable{
		Model: "tiny ViT é", ModelMS: 12.5, Kind: []string{"linear", "linear", "norm"},
		Rows:  []int64{5, 5, 5},
		Shape: []string{"linear 5x8x4", "linear 5x8x4", "norm 5x8"}, Inputs: []int64{4, 8, 0},
		Outputs: []int64{4, 4, 8}, Heads: []int64{0, 0, 0},
		MS:       []float64{0.5, 0.75, 1e-3},
		Metadata: map[string]string{"agflow.batch": "32", "agflow.device": "cpu"},
	}
}

func sampleDecisions() routing.Decisions {
	return routing.Decisions{Prediction: []int64{3, 0}, Prior: []float32{0.5, -2},
		Escalate: []bool{false, true}}
}

func sampleRouter() routing.Router {
	return routing.Router{Prior: "energy", Answers: routing.EnsembleAnswers,
		Threshold: routing.Threshold{Threshold: -0.25}}
}

// sampleLogits has two images and three classes.
func sampleLogits() arrow.Record {
	var f samples.TensorFile
	samples.Put(&f, statistics.Layer{Name: "logits"}, "", 0, 2, []float32{1, 2, 3, 4, 5, 6})
	f.Fields[0].Name = "logits"
	return f.Record(KindLogits, samples.Model, nil)
}

// sampleFrontier has one candidate.
func sampleFrontier() arrow.Record {
	fields := frontierColumns
	arrays := make([]arrow.Array, len(fields))
	for i, field := range fields {
		b := array.NewBuilder(memory.DefaultAllocator, field.Type)
		b.AppendEmptyValue()
		arrays[i] = b.NewArray()
	}
	metadata := arrow.MetadataFrom(map[string]string{ipcfile.KeyKind: KindFrontier,
		keyCostUnit: routing.MACs, keyHeavyAccuracy: "0.75", keyTolerance: "0.01", keyChosen: "0"})
	return array.NewRecord(arrow.NewSchema(fields, &metadata), arrays, 1)
}

// sampleFiles has the bytes of a file of every kind, and of a tensor file of every dtype.
func sampleFiles(t testing.TB) map[string][]byte {
	records := sampleRecords(t, memory.DefaultAllocator)
	records[KindLogits] = sampleLogits()
	records[KindFrontier] = sampleFrontier()
	records["tensor float32"] = samples.Tensor[float32]()
	records["tensor float64"] = samples.Tensor[float64]()
	records["tensor float16"] = samples.Tensor[tensor.Float16]()
	records["tensor bfloat16"] = samples.Tensor[tensor.BFloat16]()
	records["scores with channel groups"] = scoresWithGroups(sampleGroups)
	files := map[string][]byte{}
	for name, rec := range records {
		path := filepath.Join(t.TempDir(), "sample.arrow")
		if _, err := Write(path, rec); err != nil {
			t.Fatal(name, err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	return files
}

// sampleRecords has one record batch of every kind that Go writes.
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
		KindCurve: CurveToRecord(alloc, sampleCurve(), sampleSamples(), "entropy_scaled",
			routing.EnsembleAnswers),
		KindLatency:   LatencyToRecord(alloc, sampleLatency()),
		KindDecisions: decisionsToRecord(alloc, sampleDecisions(), 0, sampleRouter(), true),
	}
}

// sampleGroups are channel groups of samples.Layers, with properties other than those that their
// labels once stood for.
const sampleGroups = `{"blocks.0.mlp": {"kind": "mlp", "rounds": false, "may_vanish": false,
	"residual": true, "members": [{"name": "blocks.0.mlp.fc1.weight", "axis": 0, "role": "producer",
		"runs": [[0, 1, 1, 0], [3, 1, 2, 6]]}],
	"attributes": [{"module": "blocks.0.mlp", "name": "widths", "place": 1, "per_unit": null}]},
	"blocks.0.attn": {"kind": "heads", "rounds": true, "may_vanish": true,
	"residual": false, "members": [], "attributes": [
		{"module": "blocks.0.attn", "name": "heads", "place": null,
			"per_unit": 1}]}}`

func scoresWithGroups(text string) arrow.Record {
	scores := sampleScores()
	scores.Metadata[keyChannelGroups] = text
	return ScoresToRecord(memory.DefaultAllocator, scores)
}
