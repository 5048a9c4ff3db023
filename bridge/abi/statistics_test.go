package abi

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"agflow/bridge/tables"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

const spec = `{
	"model":{"name":"tiny","macs":1000,"params":100},"workers":1,"metadata":{"agflow.data":"abc"},
	"layers":[
		{"name":"a","group":"mlp","units":2,"unit_width":1,"unit_macs":100,"unit_params":10},
		{"name":"b","group":"heads","units":2,"unit_width":2,"unit_macs":200,"unit_params":20}
	]}`

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

// TestPipelineFromTensorsToPlan proves the calls one after another, each fed with the result of the
// one before.
func TestPipelineFromTensorsToPlan(t *testing.T) {
	c := newCaller(t)
	id := fill(t, c)
	defer closeSessionOf(t, id)
	w := c.matrix(3, 1, 2, 3, 4, 5, 6)
	elements, err := StatisticsAddWeight(id, 0, 0, w.array, w.schema)
	if err != nil || elements != 6 || !released(w) {
		t.Fatal(elements, err)
	}
	w, dw := c.matrix(3, 1, 2, 3, 4, 5, 6), c.matrix(3, 1, 1, 1, -1, -1, -1)
	elements, err = StatisticsAddWeightGradient(id, 0, 0, w.array, w.schema, dw.array, dw.schema)
	if err != nil || elements != 6 || !released(w) || !released(dw) {
		t.Fatal(elements, err)
	}
	c.result(tableOf(t, c, id), func(rec arrow.Record) {
		table, err := tables.StatisticsFromRecord(rec)
		if err != nil {
			t.Fatal(err)
		}
		if !equal(table.SumAbsYG, []float64{26, 44, 3, 7}) || table.SumW2[1] != 77 ||
			table.SumWG[1] != -15 || table.Metadata["agflow.data"] != "abc" {
			t.Errorf("%+v", table)
		}
	})
	plan := planOf(t, c, id)
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
		if err != nil || !slices.Equal(plan.Keep, []bool{false, true, false, true}) {
			t.Errorf("%+v, %v", plan, err)
		}
	})
}

// planOf merges the table of a session with itself, scores it and plans to keep half.
func planOf(t *testing.T, c *caller, id int64) wire {
	merged := c.empty()
	a, b := tableOf(t, c, id), tableOf(t, c, id)
	_, err := StatisticsMerge(a.array, a.schema, b.array, b.schema, merged.array, merged.schema)
	if err != nil {
		t.Fatal(err)
	}
	scores := c.empty()
	units, err := Score("agf", 0, merged.array, merged.schema, scores.array, scores.schema)
	if err != nil || units != 4 {
		t.Fatal(units, err)
	}
	plan := c.empty()
	report, err := Plan(`{"pruning_ratio":0.5,"round_to":1}`, scores.array, scores.schema, 0, 0,
		plan.array, plan.schema)
	if err != nil || !json.Valid([]byte(report)) {
		t.Fatal(report, err)
	}
	return plan
}

func equal(a, b []float64) bool {
	for i := range a {
		if math.Float64bits(a[i]) != math.Float64bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// TestSumsOfADevice proves that sums made elsewhere count like the batch they were made from.
func TestSumsOfADevice(t *testing.T) {
	c := newCaller(t)
	id := open(t)
	defer closeSessionOf(t, id)
	// The sums of y [1 -2; 3 4], g [5 6; -7 8].
	sums := c.matrix64(2, 26, 44, -16, 20, 466, 1168, 4, 6, 4, 2, 10, 20, 74, 100, 21, 32)
	rows, err := StatisticsAddSums(id, 0, 1, 2, sums.array, sums.schema)
	if err != nil || rows != 2 || !released(sums) {
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

// TestCallsWriteTheSameFiles proves that a table makes the same file whether it came through C
// structs or not.
func TestCallsWriteTheSameFiles(t *testing.T) {
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
	_, err := WriteFile(filepath.Join(folder, "crossed"), table.array, table.schema)
	if err != nil {
		t.Fatal(err)
	}
	direct, _ := os.ReadFile(filepath.Join(folder, "direct"))
	crossed, _ := os.ReadFile(filepath.Join(folder, "crossed"))
	if len(direct) == 0 || string(direct) != string(crossed) {
		t.Error("the files differ")
	}
}
