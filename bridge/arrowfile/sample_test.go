package arrowfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"unsafe"

	"agflow/core/criteria"
	"agflow/core/planning"
	"agflow/core/routing"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

var sampleModel = statistics.Model{Name: "tiny ViT é", MACs: 1_000, Params: 90}

var sampleLayers = []statistics.Layer{
	{Name: "blocks.0.mlp", Group: "mlp", Units: 3, UnitWidth: 1, Parts: 1, UnitMACs: 20, UnitParams: 5},
	{Name: "blocks.0.attn", Group: "heads", Units: 2, UnitWidth: 4, Parts: 1, UnitMACs: 200, UnitParams: 40},
}

func sampleStatistics() statistics.Table {
	floats := func(first float64) []float64 { return []float64{first, first + 0.1, first + 0.2, first + 0.3, 1e-300} }
	return statistics.Table{
		Model: sampleModel, Layers: sampleLayers,
		Rows: []int64{7, 7, 7, 7, 7}, Samples: []int64{2, 2, 2, 2, 2}, Batches: []int64{1, 1, 1, 1, 1},
		SumAbsYG: floats(1), SumYG: floats(-1), SumYG2: floats(2), SumAbsY: floats(3), SumY: floats(-3), SumY2: floats(4),
		SumG2: floats(5), MaxAbsYG: floats(6), Weights: []int64{0, 0, 0, 8, 8}, SumAbsW: floats(7), SumW2: floats(8),
		ReaderWeights: []int64{0, 0, 0, 4, 4}, SumAbsReader: floats(9), SumReader2: floats(10), SumRelativeReader: floats(11),
		WeightGradients: []int64{0, 0, 0, 8, 8}, SumWG: floats(-12),
		Metadata: map[string]string{"agflow.data": "sha256-abc", "agflow.seed": "3"},
	}
}

func sampleScores() criteria.Scores {
	return criteria.Scores{
		Model: sampleModel, Layers: sampleLayers, Criterion: "agf", Seed: 1<<63 + 5, Score: []float64{0.5, 0.25, 0.125, 3, 4},
		Metadata: map[string]string{"agflow.data": "sha256-abc"},
	}
}

func samplePlan() planning.Plan {
	s := sampleScores()
	return planning.Plan{
		Model: s.Model, Layers: s.Layers, Criterion: s.Criterion, Seed: s.Seed, Score: s.Score,
		Keep:     []bool{true, false, false, true, true},
		Planned:  planning.Price{MACs: 960, Params: 80, LatencyMS: 7.25},
		Request:  planning.Request{PruningRatio: 0.5, RoundTo: 1, Groups: []string{"mlp"}, IgnoredLayers: []string{"blocks.1.*"}},
		Metadata: map[string]string{"agflow.data": "sha256-abc"},
	}
}

func samplePredictions() Predictions {
	return Predictions{
		Label: []int64{0, 1, 2}, Light: []int64{0, 1, 1}, Heavy: []int64{0, 2, 2}, Both: []int64{0, 1, 0}, LightWeight: 0.375,
		Priors: []routing.Prior{
			{Name: "max_probability", Values: []float32{0.9, 0.5, 0.25}}, {Name: "entropy_scaled", Values: []float32{-0.1, -2, -3}},
			{Name: "agreement", Values: []float32{1, 0.5, 0}, MACs: 7},
		},
		Temperature: 1.5, Cost: routing.Cost{Light: 10, Heavy: 100, Shared: 1},
		Metadata: map[string]string{"agflow.data": "sha256-def", "agflow.images": "01 02", "agflow.tuning": "03"},
	}
}

// sampleSamples is what routing sees of samplePredictions.
func sampleSamples() Samples {
	p := samplePredictions()
	return Samples{routing.Samples{
		Priors: p.Priors, LightCorrect: []bool{true, true, false}, HeavyCorrect: []bool{true, false, true}, EnsembleCorrect: []bool{true, true, false},
		LightWeight: p.LightWeight, Temperature: p.Temperature, Cost: p.Cost,
		Images: "01 02", Tuning: "03",
	}, p.Metadata}
}

func sampleCurve() []routing.Point {
	return []routing.Point{
		{Threshold: 0, Escalated: 0, Escalation: 0, Accuracy: 0.5, Charged: 0.1, Uncharged: 0.1, RandomAccuracy: 0.5},
		{Threshold: 1, Escalated: 3, Escalation: 1, Accuracy: 0.75, Charged: 1.09, Uncharged: 1, RandomAccuracy: 0.75,
			EscalationInterval: routing.Interval{0.5, 1}, AccuracyInterval: routing.Interval{0.25, 0.8}, ChargedInterval: routing.Interval{0.6, 1.1},
			UnchargedInterval: routing.Interval{0.7, 1}, RandomInterval: routing.Interval{0.2, 0.9}},
	}
}

func sampleLatency() planning.LatencyTable {
	return planning.LatencyTable{
		Model: "tiny ViT é", ModelMS: 12.5, Kind: []string{"linear", "linear", "norm"}, Rows: []int64{5, 5, 5},
		Shape: []string{"linear 5x8x4", "linear 5x8x4", "norm 5x8"}, Inputs: []int64{4, 8, 0}, Outputs: []int64{4, 4, 8}, Heads: []int64{0, 0, 0},
		MS: []float64{0.5, 0.75, 1e-3}, Metadata: map[string]string{"agflow.batch": "32", "agflow.device": "cpu"},
	}
}

func sampleDecisions() routing.Decisions {
	return routing.Decisions{Prediction: []int64{3, 0}, Prior: []float32{0.5, -2}, Escalate: []bool{false, true}}
}

func sampleRouter() routing.Router {
	return routing.Router{Prior: "energy", Answers: routing.EnsembleAnswers, Threshold: routing.Threshold{Threshold: -0.25}}
}

// sampleLogits has two images and three classes.
func sampleLogits() arrow.Record {
	var f tensorFile
	put(&f, statistics.Layer{Name: "logits"}, "", 0, 2, []float32{1, 2, 3, 4, 5, 6})
	metadata := fromMap(map[string]string{keyKind: KindLogits})
	f.fields[0].Name = "logits"
	return array.NewRecord(arrow.NewSchema(f.fields, &metadata), f.arrays, int64(f.rows))
}

// sampleRecords has one record batch of every kind but tensor and logits.
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
		KindCurve:       CurveToRecord(alloc, sampleCurve(), sampleSamples(), "entropy_scaled", "both"),
		KindLatency:     LatencyToRecord(alloc, sampleLatency()),
		KindDecisions:   DecisionsToRecord(alloc, sampleDecisions(), sampleRouter(), true),
	}
}

// sampleFiles has the bytes of a file of every kind, and of a tensor file of every dtype.
func sampleFiles(t testing.TB) map[string][]byte {
	records := sampleRecords(t, memory.DefaultAllocator)
	records["logits"] = sampleLogits()
	records["tensor float32"] = sampleTensor[float32]()
	records["tensor float64"] = sampleTensor[float64]()
	records["tensor float16"] = sampleTensor[tensor.Float16]()
	records["tensor bfloat16"] = sampleTensor[tensor.BFloat16]()
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

// tensorFile collects the columns of a tensor file.
type tensorFile struct {
	fields []arrow.Field
	arrays []arrow.Array
	rows   int
}

// put adds a column; its list array has an offset of one row, as slices from other languages do.
func put[T tensor.Element](f *tensorFile, l statistics.Layer, role string, axis, rows int, values []T) {
	size := len(values) / rows
	pairs := map[string]string{
		"agflow.layer": l.Name, "agflow.group": l.Group, "agflow.role": role[:min(1, len(role))], "agflow.units": strconv.Itoa(l.Units),
		"agflow.unit_width": strconv.Itoa(l.UnitWidth), "agflow.parts": strconv.Itoa(l.Parts), "agflow.unit_macs": fmt.Sprint(l.UnitMACs),
		"agflow.unit_params": fmt.Sprint(l.UnitParams), "agflow.unit_axis": strconv.Itoa(axis),
	}
	var of arrow.DataType
	var zero T
	switch any(zero).(type) {
	case float32:
		of = arrow.PrimitiveTypes.Float32
	case float64:
		of = arrow.PrimitiveTypes.Float64
	case tensor.Float16:
		of = arrow.FixedWidthTypes.Float16
	case tensor.BFloat16:
		of, pairs["agflow.dtype"] = arrow.PrimitiveTypes.Uint16, "bfloat16"
	}
	padded := append(make([]T, size), values...)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&padded[0])), len(padded)*int(unsafe.Sizeof(zero)))
	child := array.NewData(of, len(padded), []*memory.Buffer{nil, memory.NewBufferBytes(bytes)}, nil, 0, 0)
	list := array.NewData(arrow.FixedSizeListOf(int32(size), of), rows, []*memory.Buffer{nil}, []arrow.ArrayData{child}, 0, 1)
	f.fields = append(f.fields, arrow.Field{Name: l.Name + "." + role, Type: list.DataType(), Metadata: fromMap(pairs)})
	f.arrays = append(f.arrays, array.MakeFromData(list))
	f.rows = rows
}

func (f *tensorFile) record(model statistics.Model, more map[string]string) arrow.Record {
	pairs := copied(more)
	putModel(pairs, model)
	pairs[keyKind] = KindTensor
	metadata := fromMap(pairs)
	return array.NewRecord(arrow.NewSchema(f.fields, &metadata), f.arrays, int64(f.rows))
}

// sampleTensor has two images of two tokens; its elements are numbered from 0 in units of their smallest number.
func sampleTensor[T tensor.Element]() arrow.Record {
	var f tensorFile
	l := sampleLayers[0]
	values := make([]T, 4*l.Channels())
	for i := range values {
		values[i] = T(i)
	}
	put(&f, l, "y", 0, 2, values)
	put(&f, l, "g", 0, 2, values)
	return f.record(sampleModel, nil)
}
