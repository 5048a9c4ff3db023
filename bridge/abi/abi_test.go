package abi

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"agflow/bridge/carrow"
	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

const spec = `{"model":{"name":"tiny","macs":1000,"params":100},"workers":1,"metadata":{"agflow.data":"abc"},
	"layers":[{"name":"a","group":"mlp","units":2,"unit_width":1,"unit_macs":100,"unit_params":10},
	          {"name":"b","group":"heads","units":2,"unit_width":2,"unit_macs":200,"unit_params":20}]}`

func open(t testing.TB) int64 {
	id, err := StatisticsOpen(spec)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func closeSessionOf(t testing.TB, id int64) {
	if _, err := StatisticsClose(id); err != nil {
		t.Error(err)
	}
}

// fill opens a session and adds one batch to both layers.
func fill(t testing.TB, c *caller) int64 {
	id := open(t)
	add := func(layer int64, y, g wire) {
		if _, err := StatisticsAdd(id, layer, 1, y.array, y.schema, g.array, g.schema); err != nil {
			t.Fatal(err)
		}
		if !released(y) || !released(g) {
			t.Error("an input was not released")
		}
	}
	add(0, c.matrix(2, 1, -2, 3, 4), c.matrix(2, 5, 6, -7, 8))
	add(1, c.matrix(4, 1, 2, 3, 4), c.matrix(4, 1, -1, 1, -1))
	return id
}

func tableOf(t testing.TB, c *caller, id int64) wire {
	out := c.empty()
	if units, err := StatisticsTable(id, out.array, out.schema); err != nil || units != 4 {
		t.Fatal(units, err)
	}
	return out
}

// TestRoadFromTensorsToPlan proves the calls one after another, each fed with the result of the one before.
func TestRoadFromTensorsToPlan(t *testing.T) {
	c := newCaller(t)
	id := fill(t, c)
	defer closeSessionOf(t, id)
	w := c.matrix(3, 1, 2, 3, 4, 5, 6)
	if elements, err := StatisticsAddWeight(id, 0, 0, w.array, w.schema); err != nil || elements != 6 || !released(w) {
		t.Fatal(elements, err)
	}
	w, dw := c.matrix(3, 1, 2, 3, 4, 5, 6), c.matrix(3, 1, 1, 1, -1, -1, -1)
	if elements, err := StatisticsAddWeightGradient(id, 0, 0, w.array, w.schema, dw.array, dw.schema); err != nil || elements != 6 || !released(w) || !released(dw) {
		t.Fatal(elements, err)
	}
	c.result(tableOf(t, c, id), func(rec arrow.Record) {
		table, err := tables.StatisticsFromRecord(rec)
		if err != nil {
			t.Fatal(err)
		}
		if want := []float64{26, 44, 3, 7}; !equal(table.SumAbsYG, want) || table.Metadata["agflow.data"] != "abc" || table.SumW2[1] != 77 || table.SumWG[1] != -15 {
			t.Errorf("%+v", table)
		}
	})

	merged := c.empty()
	a, b := tableOf(t, c, id), tableOf(t, c, id)
	if _, err := StatisticsMerge(a.array, a.schema, b.array, b.schema, merged.array, merged.schema); err != nil {
		t.Fatal(err)
	}
	scores := c.empty()
	if units, err := Score("agf", 0, merged.array, merged.schema, scores.array, scores.schema); err != nil || units != 4 {
		t.Fatal(units, err)
	}
	plan := c.empty()
	report, err := Plan(`{"pruning_ratio":0.5,"round_to":1}`, scores.array, scores.schema, 0, 0, plan.array, plan.schema)
	if err != nil || !json.Valid([]byte(report)) {
		t.Fatal(report, err)
	}
	path := filepath.Join(t.TempDir(), "plan.arrow")
	if _, err := WriteFile(path, plan.array, plan.schema); err != nil {
		t.Fatal(err)
	}
	back := c.empty()
	if rows, err := ReadFile(path, "plan", back.array, back.schema); err != nil || rows != 4 {
		t.Fatal(rows, err)
	}
	c.result(back, func(rec arrow.Record) {
		plan, err := tables.PlanFromRecord(rec)
		if err != nil || len(plan.Keep) != 4 || plan.Keep[0] || !plan.Keep[1] || plan.Keep[2] || !plan.Keep[3] {
			t.Errorf("%+v, %v", plan, err)
		}
	})
}

func equal(a, b []float64) bool {
	for i := range a {
		if math.Float64bits(a[i]) != math.Float64bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// TestRoadFromLogitsToCurve proves the routing calls.
func TestRoadFromLogitsToCurve(t *testing.T) {
	c := newCaller(t)
	logits := func() wire { return c.matrix(2, 5, 0, 0, 0, 0, 9) }
	in, out := logits(), c.empty()
	if rows, err := Priors(1, in.array, in.schema, out.array, out.schema); err != nil || rows != 3 {
		t.Fatal(rows, err)
	}
	c.result(out, func(rec arrow.Record) {
		classes, priors := rec.Column(0).(*array.Int64), rec.Column(1).(*array.Float32)
		if classes.Value(0) != 0 || classes.Value(2) != 1 || priors.Value(1) != 0.5 {
			t.Errorf("%v", rec)
		}
	})
	in, out = logits(), c.empty()
	if escalated, err := Route("max_probability", 1, 0.9, in.array, in.schema, out.array, out.schema); err != nil || escalated != 1 {
		t.Fatal(escalated, err)
	}
	free(out)

	predictions := func() wire {
		p := tables.Predictions{Temperature: 1, Cost: routing.Cost{Light: 20, Heavy: 100}, Priors: []routing.Prior{{Name: "max_probability"}}}
		for i := range int64(100) {
			p.Label, p.Light, p.Heavy = append(p.Label, i%3), append(p.Light, i%3), append(p.Heavy, i%3)
			p.Priors[0].Values = append(p.Priors[0].Values, float32(i)/100)
		}
		return c.record(tables.PredictionsToRecord(c.memory, p))
	}
	in = predictions()
	text, err := CalibrateRouter(`{"tolerance":0.1,"confidence":0.9}`, in.array, in.schema)
	if err != nil || !strings.Contains(text, `"verdict"`) {
		t.Error(text, err)
	}
	path := filepath.Join(t.TempDir(), "router.json")
	if _, err := WriteRouter(path, text); err != nil {
		t.Fatal(err)
	}
	if back, err := ReadRouter(path); err != nil || back != text {
		t.Errorf("%s, %v; expected %s", back, err, text)
	}
	in, out = logits(), c.empty()
	if rows, err := FeatureNorms(in.array, in.schema, out.array, out.schema); err != nil || rows != 3 {
		t.Fatal(rows, err)
	}
	free(out)
	light, heavy, out := logits(), logits(), c.empty()
	if values, err := Combine(0.5, light.array, light.schema, heavy.array, heavy.schema, out.array, out.schema); err != nil || values != 6 {
		t.Fatal(values, err)
	}
	free(out)
	light, heavy, out = logits(), logits(), c.empty()
	if rows, err := Agreement(light.array, light.schema, heavy.array, heavy.schema, out.array, out.schema); err != nil || rows != 3 {
		t.Fatal(rows, err)
	}
	free(out)
	light, heavy = logits(), logits()
	labels := predictions()
	if text, err := FitLightWeight(light.array, light.schema, heavy.array, heavy.schema, labels.array, labels.schema); fault.CodeOf(err) != fault.Shape {
		t.Error(text, err) // 100 labels for 3 rows
	}
	in = logits()
	labels = predictions()
	if text, err := FitTemperature(in.array, in.schema, labels.array, labels.schema); fault.CodeOf(err) != fault.Shape {
		t.Error(text, err) // 100 labels for 3 rows
	}
	in, out = predictions(), c.empty()
	if points, err := Curve(`{"points":10}`, in.array, in.schema, out.array, out.schema); err != nil || points < 2 || points > 10 {
		t.Fatal(points, err)
	}
	free(out)
	in = predictions()
	if text, err := Rank(in.array, in.schema); err != nil || !strings.Contains(text, `"auroc":0.5,"low":0,"high":1,"errors":0`) {
		t.Error(text, err)
	}
	in = predictions()
	if text, err := Oracle("heavy", in.array, in.schema); err != nil || !strings.Contains(text, `"charged":0.2,`) {
		t.Error(text, err)
	}
	in = predictions()
	if text, err := EvaluateRouter(text, in.array, in.schema); err != nil || !strings.Contains(text, `"lost":0,"gained":0,"point":{"threshold":`) {
		t.Error(text, err)
	}
	in = logits()
	if text, err := DynamicRange(in.array, in.schema); err != nil || !strings.Contains(text, `"max":9,"median":0,`) {
		t.Error(text, err)
	}
	if text, err := Ledger(`{"light_macs":20,"heavy_macs":100,"shared_macs":0,"samples":10,"escalated":5}`); err != nil || !strings.Contains(text, `"charged":0.7`) {
		t.Error(text, err)
	}
	if text, err := Criteria(); err != nil || !strings.Contains(text, `"agf_relative"`) {
		t.Error(text, err)
	}
}

// TestAbsYG proves that Σ|y·g| alone comes back as one array, in memory that the caller gives back.
func TestAbsYG(t *testing.T) {
	c := newCaller(t)
	y, g, out := c.matrix(2, 1, -2, 3, 4), c.matrix(2, 5, 6, -7, 8), c.empty()
	if rows, err := AbsYG(1, y.array, y.schema, g.array, g.schema, out.array, out.schema); err != nil || rows != 2 {
		t.Fatal(rows, err)
	}
	c.resultArray(out, func(values arrow.Array) {
		if got := values.(*array.Float64).Float64Values(); !equal(got, []float64{26, 44}) {
			t.Errorf("%v", got)
		}
	})
	if name, err := Kernel(); err != nil || name != "avx2" && name != "portable" {
		t.Error(name, err)
	}
	m := c.matrix(2, 0, 0, 0, 1)
	if bits, err := ReadLimit(1, m.array, m.schema); err != nil || bits == 0 {
		t.Error(bits, err)
	}
}

// TestTopK proves it over more than one word of bits.
func TestTopK(t *testing.T) {
	c := newCaller(t)
	for _, n := range []int{0, 1, 63, 64, 65, 130} {
		scores := make([]float64, n)
		for i := range scores {
			scores[i] = float64(i * 37 % 131)
		}
		in, out, k := c.matrix64(1, scores...), c.empty(), int64(n/2)
		if kept, err := TopK(k, 1, in.array, in.schema, out.array, out.schema); err != nil || kept != k || !released(in) {
			t.Fatal(n, kept, err)
		}
		c.resultArray(out, func(values arrow.Array) {
			worst, best := math.Inf(1), math.Inf(-1) // of the kept, of the others
			for i, score := range scores {
				if values.(*array.Boolean).Value(i) {
					worst, k = min(worst, score), k-1
				} else {
					best = max(best, score)
				}
			}
			if values.Len() != n || k != 0 || worst < best {
				t.Errorf("%d scores: %d values, %d fewer than k, a kept %v beside a dropped %v", n, values.Len(), k, worst, best)
			}
		})
	}
}

// TestSumsOfADevice proves that sums made elsewhere count like the batch they were made from.
func TestSumsOfADevice(t *testing.T) {
	c := newCaller(t)
	id := open(t)
	defer closeSessionOf(t, id)
	sums := c.matrix64(2, 26, 44, -16, 20, 466, 1168, 4, 6, 4, 2, 10, 20, 74, 100, 21, 32) // of y [1 -2; 3 4], g [5 6; -7 8]
	if rows, err := StatisticsAddSums(id, 0, 1, 2, sums.array, sums.schema); err != nil || rows != 2 || !released(sums) {
		t.Fatal(rows, err)
	}
	y, g := c.matrix(2, 1, -2, 3, 4), c.matrix(2, 5, 6, -7, 8)
	other := open(t)
	defer closeSessionOf(t, other)
	if _, err := StatisticsAdd(other, 0, 1, y.array, y.schema, g.array, g.schema); err != nil {
		t.Fatal(err)
	}
	c.result(tableOf(t, c, id), func(device arrow.Record) {
		c.result(tableOf(t, c, other), func(host arrow.Record) {
			if !array.RecordEqual(device, host) {
				t.Errorf("%v, expected %v", device, host)
			}
		})
	})
}

// TestFilesOfBothRoads proves that a table makes the same file whether it came through C structs or not.
func TestFilesOfBothRoads(t *testing.T) {
	c := newCaller(t)
	id := fill(t, c)
	defer closeSessionOf(t, id)
	folder := t.TempDir()
	c.result(tableOf(t, c, id), func(rec arrow.Record) {
		table, err := tables.StatisticsFromRecord(rec)
		if err != nil {
			t.Fatal(err)
		}
		direct := tables.StatisticsToRecord(c.memory, table)
		defer direct.Release()
		if _, err := tables.Write(filepath.Join(folder, "direct"), direct); err != nil {
			t.Fatal(err)
		}
	})
	table := tableOf(t, c, id)
	if _, err := WriteFile(filepath.Join(folder, "crossed"), table.array, table.schema); err != nil {
		t.Fatal(err)
	}
	direct, _ := os.ReadFile(filepath.Join(folder, "direct"))
	crossed, _ := os.ReadFile(filepath.Join(folder, "crossed"))
	if len(direct) == 0 || string(direct) != string(crossed) {
		t.Error("the files differ")
	}
}

// TestErrorsReleaseInputsAndLeaveResults proves for every call with Arrow arguments that an error gives the inputs
// back and leaves the result structs zeroed.
func TestErrorsReleaseInputsAndLeaveResults(t *testing.T) {
	c := newCaller(t)
	id := open(t)
	defer closeSessionOf(t, id)
	// A matrix is no table, and two channels fit no layer of three.
	bad := func() wire { return c.matrix(3, 1, 2, 3) }
	for name, call := range map[string]func(a, b, out wire) error{
		"StatisticsAdd": func(a, b, _ wire) error { return second(StatisticsAdd(id, 0, 1, a.array, a.schema, b.array, b.schema)) },
		"StatisticsAdd, closed": func(a, b, _ wire) error {
			return second(StatisticsAdd(999, 0, 1, a.array, a.schema, b.array, b.schema))
		},
		"StatisticsAdd, layer": func(a, b, _ wire) error { return second(StatisticsAdd(id, 9, 1, a.array, a.schema, b.array, b.schema)) },
		"StatisticsAddWeight": func(a, b, _ wire) error {
			defer free(b)
			return second(StatisticsAddWeight(id, 0, 0, a.array, a.schema))
		},
		"StatisticsAddWeightGradient": func(a, b, _ wire) error {
			return second(StatisticsAddWeightGradient(id, 0, 0, a.array, a.schema, b.array, b.schema))
		},
		"StatisticsAddSums": func(a, b, _ wire) error {
			defer free(b)
			return second(StatisticsAddSums(id, 0, 1, 1, a.array, a.schema))
		},
		"AbsYG, no workers": func(a, b, out wire) error {
			return second(AbsYG(0, a.array, a.schema, b.array, b.schema, out.array, out.schema))
		},
		"AbsYG, result in use": func(a, b, out wire) error {
			return second(AbsYG(1, a.array, a.schema, b.array, b.schema, b.array, b.schema))
		},
		"ReadLimit, endless workers": func(a, b, _ wire) error {
			defer free(b)
			return second(ReadLimit(math.MaxInt64, a.array, a.schema))
		},
		"TopK": func(a, b, out wire) error {
			defer free(b)
			return second(TopK(1, 1, a.array, a.schema, out.array, out.schema))
		},
		"Diagnose": func(a, b, _ wire) error {
			defer free(b)
			return second(Diagnose(`{}`, a.array, a.schema))
		},
		"Diagnose, misspelt": func(a, b, _ wire) error {
			defer free(b)
			return second(Diagnose(`{"criterium":"agf"}`, a.array, a.schema))
		},
		"Stability": func(a, b, _ wire) error {
			defer free(b)
			return second(Stability(`{"tables":1}`, a.array, a.schema))
		},
		"AgainstRandom": func(a, b, _ wire) error {
			free(a)
			free(b)
			return second(AgainstRandom(`{"pictures":1}`))
		},
		"StatisticsMerge": func(a, b, out wire) error {
			return second(StatisticsMerge(a.array, a.schema, b.array, b.schema, out.array, out.schema))
		},
		"StatisticsMerge, result in use": func(a, b, out wire) error {
			return second(StatisticsMerge(a.array, a.schema, b.array, b.schema, a.array, a.schema))
		},
		"Score": func(a, b, out wire) error {
			defer free(b)
			return second(Score("agf", 0, a.array, a.schema, out.array, out.schema))
		},
		"Plan": func(a, b, out wire) error {
			return second(Plan(`{}`, a.array, a.schema, b.array, b.schema, out.array, out.schema))
		},
		"Plan, misspelt": func(a, b, out wire) error {
			return second(Plan(`{"prune_ratio":1}`, a.array, a.schema, b.array, b.schema, out.array, out.schema))
		},
		"Diff": func(a, b, _ wire) error {
			return second(Diff(a.array, a.schema, b.array, b.schema))
		},
		"Route, no result": func(a, b, out wire) error {
			defer free(b)
			return second(Route("energy", 1, 0.5, a.array, a.schema, 0, 0))
		},
		"Combine": func(a, b, out wire) error {
			return second(Combine(2, a.array, a.schema, b.array, b.schema, out.array, out.schema))
		},
		"Agreement, no result": func(a, b, out wire) error {
			return second(Agreement(a.array, a.schema, b.array, b.schema, 0, 0))
		},
		"FitLightWeight": func(a, b, _ wire) error {
			return second(FitLightWeight(a.array, a.schema, b.array, b.schema, 0, 0))
		},
		"Curve, answers misspelt": func(a, b, out wire) error {
			defer free(b)
			return second(Curve(`{"answer":"both"}`, a.array, a.schema, out.array, out.schema))
		},
		"Curve": func(a, b, out wire) error {
			defer free(b)
			return second(Curve(`{}`, a.array, a.schema, out.array, out.schema))
		},
		"CalibrateRouter": func(a, b, _ wire) error {
			defer free(b)
			return second(CalibrateRouter(`{}`, a.array, a.schema))
		},
		"Rank": func(a, b, _ wire) error {
			defer free(b)
			return second(Rank(a.array, a.schema))
		},
		"EvaluateRouter": func(a, b, _ wire) error {
			defer free(b)
			return second(EvaluateRouter(`{"format":3,"prior":"max_probability","temperature":1,"answers":"heavy"}`, a.array, a.schema))
		},
		"EvaluateRouter, no router": func(a, b, _ wire) error {
			defer free(b)
			return second(EvaluateRouter(`{}`, a.array, a.schema))
		},
		"Oracle": func(a, b, _ wire) error {
			defer free(b)
			return second(Oracle("heavy", a.array, a.schema))
		},
		"WriteFile": func(a, b, _ wire) error {
			defer free(b)
			return second(WriteFile(filepath.Join(t.TempDir(), "x"), a.array, a.schema))
		},
		"ReadFile": func(a, b, out wire) error {
			free(a)
			free(b)
			return second(ReadFile("/none", "plan", out.array, out.schema))
		},
	} {
		a, b, out := bad(), bad(), c.empty()
		err := call(a, b, out)
		if err == nil || !strings.HasPrefix(err.Error(), "agflow:") || fault.CodeOf(err) == fault.Internal {
			t.Errorf("%s: %v", name, err)
		}
		if !released(a) || !released(b) || !untouched(out) {
			t.Errorf("%s: inputs released %v, %v; result untouched %v", name, released(a), released(b), untouched(out))
		}
	}
}

// TestPanicBecomesAnError proves it by taking away the memory for results in the middle of a call.
func TestPanicBecomesAnError(t *testing.T) {
	c := newCaller(t)
	kept := resultMemory
	resultMemory = nil
	defer func() { resultMemory = kept }()
	in, out := c.matrix(2, 0, 1), c.empty()
	_, err := Route("max_probability", 1, 0.9, in.array, in.schema, out.array, out.schema)
	if fault.CodeOf(err) != fault.Internal || !released(in) || !untouched(out) {
		t.Errorf("%v; input released %v, result untouched %v", err, released(in), untouched(out))
	}
}

// TestPartsOfLayers proves that a session takes layers in parts, 1 unless it is said, and refuses parts that do not fit.
func TestPartsOfLayers(t *testing.T) {
	newCaller(t)
	for parts, code := range map[string]fault.Code{``: "", `,"parts":0`: "", `,"parts":1`: "", `,"parts":2`: "", `,"parts":3`: fault.Shape, `,"parts":-1`: fault.Shape} {
		id, err := StatisticsOpen(`{"layers":[{"name":"v","group":"head_dim","units":4,"unit_width":1` + parts + `}]}`)
		switch {
		case (err == nil) != (code == "") || err != nil && fault.CodeOf(err) != code:
			t.Errorf("%s: %v", parts, err)
		case err == nil:
			closeSessionOf(t, id)
		}
	}
}

func TestClosedSessionsAreRefused(t *testing.T) {
	newCaller(t)
	id := open(t)
	closeSessionOf(t, id)
	for _, stale := range []int64{id, 0, -1, 1 << 40} {
		if _, err := StatisticsClose(stale); fault.CodeOf(err) != fault.Closed {
			t.Errorf("session %d: %v", stale, err)
		}
	}
}

// TestConcurrentCalls proves (with -race) that sessions are safe: threads add to one shared and to their own session,
// and closing under way is an error, not a crash.
func TestConcurrentCalls(t *testing.T) {
	c := newCaller(t)
	shared := open(t)
	const threads, calls = 8, 50
	type pair struct{ y, g wire }
	pairs := make(chan pair, 2*threads*calls)
	for range 2 * threads * calls {
		pairs <- pair{c.matrix(2, 1, 2), c.matrix(2, 3, 4)}
	}
	var wait sync.WaitGroup
	for range threads {
		wait.Go(func() {
			own, err := StatisticsOpen(spec)
			if err != nil {
				t.Error(err)
			}
			for range calls {
				for _, id := range []int64{shared, own} {
					p := <-pairs
					if _, err := StatisticsAdd(id, 0, 1, p.y.array, p.y.schema, p.g.array, p.g.schema); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := StatisticsClose(own); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	c.result(tableOf(t, c, shared), func(rec arrow.Record) {
		table, err := tables.StatisticsFromRecord(rec)
		if err != nil || table.Batches[0] != threads*calls || table.SumYG[0] != 3*threads*calls {
			t.Errorf("%+v, %v", table, err)
		}
	})
	for range threads {
		out := c.empty()
		wait.Go(func() {
			if _, err := StatisticsClose(shared); err != nil && fault.CodeOf(err) != fault.Closed {
				t.Error(err)
			}
		})
		wait.Go(func() {
			if _, err := StatisticsTable(shared, out.array, out.schema); err == nil {
				free(out)
			} else if fault.CodeOf(err) != fault.Closed {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

func second[T any](_ T, err error) error { return err }

// BenchmarkStatisticsAdd is what one call costs beside its kernel: two rows of two channels.
func BenchmarkStatisticsAdd(b *testing.B) {
	c := newCaller(b)
	id := open(b)
	defer closeSessionOf(b, id)
	y, g := c.matrix(2, 1, 2, 3, 4), c.matrix(2, 5, 6, 7, 8)
	releases := [4]*uintptr{releaseOf(y.array, arrayRelease), releaseOf(y.schema, schemaRelease), releaseOf(g.array, arrayRelease), releaseOf(g.schema, schemaRelease)}
	var kept [4]uintptr
	for i, release := range releases {
		kept[i] = *release
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, release := range releases {
			*release = carrow.MarkReleased
		}
		if _, err := StatisticsAdd(id, 0, 1, y.array, y.schema, g.array, g.schema); err != nil {
			b.Fatal(err)
		}
	}
	for i, release := range releases {
		*release = kept[i]
	}
	free(y)
	free(g)
}
