package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"agflow/bridge/arrowfile"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// logitsFile writes logits of two classes.
func logitsFile(t *testing.T, path string, values ...float32) {
	t.Helper()
	list := array.NewFixedSizeListBuilder(memory.DefaultAllocator, 2, arrow.PrimitiveTypes.Float32)
	for range len(values) / 2 {
		list.Append(true)
	}
	list.ValueBuilder().(*array.Float32Builder).AppendValues(values, nil)
	column := list.NewArray()
	metadata := arrow.NewMetadata([]string{"agflow.kind"}, []string{"logits"})
	schema := arrow.NewSchema([]arrow.Field{{Name: "logits", Type: column.DataType()}}, &metadata)
	if err := save(path, array.NewRecord(schema, []arrow.Array{column}, int64(column.Len()))); err != nil {
		t.Fatal(err)
	}
}

func routerFile(t *testing.T, path, answers string, weight float64) {
	t.Helper()
	router := routing.Router{
		Format: routing.RouterFormat, Prior: "max_probability", Temperature: 1, Answers: answers, LightWeight: weight,
		Threshold: routing.Threshold{Threshold: 0.9, Verdict: routing.Pass},
	}
	if _, err := arrowfile.WriteRouter(path, router); err != nil {
		t.Fatal(err)
	}
}

// Four images, of which the second and the last are unsure. The heavy expert turns both answers round, and both experts
// together only that of the last.
func TestDecide(t *testing.T) {
	t.Chdir(t.TempDir())
	logitsFile(t, "light.arrow", 5, 0, 1, 0, 0, 5, 0.5, 0)
	logitsFile(t, "heavy.arrow", 0, 0.5, 0, 3)
	routerFile(t, "heavy.json", routing.HeavyAnswers, 0)
	routerFile(t, "both.json", routing.EnsembleAnswers, 0.5)
	for _, c := range []struct {
		router, heavy, answers string
		predictions            []int64
		says                   string
	}{
		{"heavy.json", "", "", []int64{0, 0, 1, 0}, "decisions.arrow: 2 of 4 images escalate: an image escalates when its max_probability is below 0.9"},
		{"both.json", "", "", []int64{0, 0, 1, 0}, "; both experts answer it then, the light one with weight 0.5"},
		{"heavy.json", "heavy.arrow", "heavy", []int64{0, 1, 1, 1}, "decisions.arrow: 4 images answered, 2 of them by the heavy expert"},
		{"both.json", "heavy.arrow", "both", []int64{0, 0, 1, 1}, "decisions.arrow: 4 images answered, 2 of them by both experts"},
	} {
		arguments := []string{"decide", "--router", c.router, "--light", "light.arrow"}
		if c.heavy != "" {
			arguments = append(arguments, "--heavy", c.heavy)
		}
		if out := must(t, arguments...); !strings.Contains(out, c.says) {
			t.Errorf("%v: %q is not in %s", arguments, c.says, out)
		}
		var answers string
		d, err := load("decisions.arrow", arrowfile.KindDecisions, func(rec arrow.Record) (routing.Decisions, error) {
			metadata := rec.Schema().Metadata()
			answers, _ = metadata.GetValue("agflow.answers")
			return arrowfile.DecisionsFromRecord(rec)
		})
		if err != nil || !slices.Equal(d.Prediction, c.predictions) || fmt.Sprint(d.Escalate) != "[false true false true]" || d.Prior[1] >= 0.9 || answers != c.answers {
			t.Errorf("%v: got %+v by %q, %v", arguments, d, answers, err)
		}
		var told map[string]any
		if err := json.Unmarshal([]byte(must(t, append(arguments, "--json")...)), &told); err != nil || told["escalated"] != 2.0 || told["answered"] != (c.heavy != "") {
			t.Errorf("%v: %v, %v", arguments, told, err)
		}
	}
	if out := must(t, "inspect", "light.arrow", "decisions.arrow"); !strings.Contains(out, "light.arrow: logits, 4 rows") || !strings.Contains(out, "agflow.threshold") {
		t.Error(out)
	}
	if err := os.WriteFile("old.json", []byte(`{"format": 2, "prior": "agreement", "temperature": 1, "threshold": 0.5}`), 0o600); err != nil {
		t.Fatal(err)
	}
	logitsFile(t, "none.arrow")
	for arguments, want := range map[string]struct {
		status int
		says   string
	}{
		"--router heavy.json":                                             {exitUsage, "--light is missing"},
		"--router none.json --light light.arrow":                          {exitFailed, "can't read none.json"},
		"--router light.arrow --light light.arrow":                        {exitBadData, "the router is not the JSON expected"},
		"--router old.json --light light.arrow":                           {exitUsage, `the prior "agreement" can't be made of logits`},
		"--router heavy.json --light decisions.arrow":                     {exitBadData, "holds agflow decisions, expected logits"},
		"--router heavy.json --light light.arrow --heavy light.arrow":     {exitBadData, "the heavy expert's logits are [4, 2], expected [2, 2]"},
		"--router heavy.json --light light.arrow --heavy none.arrow":      {exitBadData, "the heavy expert's logits are [0, 2], expected [2, 2]"},
		"--router heavy.json --light light.arrow --output absent/d.arrow": {exitFailed, "can't write absent/d.arrow"},
	} {
		_, complaint, status := agflow(append([]string{"decide"}, strings.Fields(arguments)...)...)
		if status != want.status || !strings.Contains(complaint, want.says) {
			t.Errorf("%s: status %d, %s", arguments, status, complaint)
		}
	}
}
