package diagnostics

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"agflow/core/criteria"
	"agflow/core/fault"
)

// The report has every criterion's ranges and every pair's agreement, equal to the results of the
// single functions.
func TestDiagnoseIsTheSumOfItsParts(t *testing.T) {
	table := batch(toyLayers, 1, 50)
	report, err := Diagnose(table, Request{
		Criteria: []string{"agf", "magnitude", "random"}, PruningRatio: 0.5, Seed: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []criteria.Scores
	for i, name := range []string{"agf", "magnitude", "random"} {
		s, err := criteria.Score(name, 3, table)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
		overall, _ := DynamicRange(s.Score)
		mlp, _ := DynamicRange(s.Score[6:])
		if r := report.Ranges[i]; r.Criterion != name || !reflect.DeepEqual(r.Overall, overall) ||
			r.Layers[1].Layer != "blocks.0.mlp" || !reflect.DeepEqual(r.Layers[1].Range, mlp) {
			t.Errorf("%s: got %+v", name, r)
		}
	}
	for i, pair := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
		want, err := Agreement(all[pair[0]], all[pair[1]], 0.5)
		if err != nil || !reflect.DeepEqual(report.Agreements[i], want) {
			t.Errorf("pair %v: got %+v, want %+v, %v", pair, report.Agreements[i], want, err)
		}
	}
	if len(report.Agreements) != 3 || report.PruningRatio != 0.5 || report.Seed != 3 {
		t.Errorf("got %+v", report)
	}
}

// Without names, criteria whose needs were not recorded are left out; with names they are refused.
func TestDiagnoseLeavesOutWhatWasNotRecorded(t *testing.T) {
	table := batch(toyLayers, 1, 50)
	names := func() (names []string) {
		report, err := Diagnose(table, Request{PruningRatio: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report.Ranges {
			names = append(names, r.Criterion)
		}
		return names
	}
	if got := names(); !slices.Equal(got, criteria.Names()) {
		t.Errorf("got %v", got)
	}
	clear(table.WeightGradients)
	clear(table.ReaderWeights)
	want := "agf agf_relative taylor fisher activation variance magnitude magnitude_l1 random"
	if got := names(); strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	_, err := Diagnose(table, Request{
		Criteria: []string{"agf", "taylor_weight"}, PruningRatio: 0.5,
	})
	requireCode(t, "by name", err, fault.Layer)
}

// The JSON is flat, has keys in snake case, and null where a ratio does not exist.
func TestReportAsJSON(t *testing.T) {
	table := batch(toyLayers, 1, 0)
	clear(table.SumAbsYG)
	report, err := Diagnose(table, Request{
		Criteria: []string{"agf", "magnitude"}, PruningRatio: 0.5,
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`{"pruning_ratio":0.5,"seed":0,"ranges":[{"criterion":"agf","overall":{"max":0,` +
			`"median":0,"p1":0,"p99":0,"max_over_median":null,"p99_over_p1":null},` +
			`"layers":[{"layer":"blocks.0.attn","max":0,`,
		`"agreements":[{"a":"agf","b":"magnitude","overall":{"jaccard":`,
		`"spearman":null},"layers":[{"layer":"blocks.0.attn","units":6,"kept":3,"jaccard":`,
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("%s is not in %s", part, text)
		}
	}
	one, err := Diagnose(table, Request{Criteria: []string{"agf"}, PruningRatio: 0.5})
	if text, _ = json.Marshal(one); err != nil ||
		!strings.Contains(string(text), `"agreements":[]`) {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestDiagnoseRefusals(t *testing.T) {
	table := batch(toyLayers, 1, 50)
	for name, c := range map[string]struct {
		request Request
		code    fault.Code
	}{
		"ratio":   {Request{}, fault.Value},
		"unknown": {Request{Criteria: []string{"agfs"}, PruningRatio: 0.5}, fault.Value},
	} {
		_, err := Diagnose(table, c.request)
		requireCode(t, name, err, c.code)
	}
	clear(table.Rows)
	_, err := Diagnose(table, Request{PruningRatio: 0.5})
	requireCode(t, "no rows", err, fault.Empty)
}
