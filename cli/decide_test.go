package main

import (
	"fmt"
	"slices"
	"testing"

	"agflow/bridge/tables"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
)

// decideFiles writes the logits of four images, of which the second and the last have low
// confidence. The heavy expert changes both answers, and the ensemble only that of the last.
func decideFiles(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	logitsFile(t, "light.arrow", 5, 0, 1, 0, 0, 5, 0.5, 0)
	logitsFile(t, "heavy.arrow", 0, 0.5, 0, 3)
	routerFile(t, "heavy.json", routing.HeavyAnswers, 0)
	routerFile(t, "both.json", routing.EnsembleAnswers, 0.5)
}

func TestDecide(t *testing.T) {
	decideFiles(t)
	for _, c := range []struct {
		router, heavy, answers string
		predictions            []int64
		says                   string
	}{
		{"heavy.json", "", "", []int64{0, 0, 1, 0}, "decisions.arrow: 2 of 4 images escalate: " +
			"an image escalates when its max_probability is below 0.9"},
		{"both.json", "", "", []int64{0, 0, 1, 0},
			"the ensemble of both experts answers it, the light one with weight 0.5"},
		{"heavy.json", "heavy.arrow", "heavy", []int64{0, 1, 1, 1},
			"decisions.arrow: 4 images answered, 2 of them by the heavy expert"},
		{"both.json", "heavy.arrow", "ensemble", []int64{0, 0, 1, 1},
			"decisions.arrow: 4 images answered, 2 of them by the ensemble of both experts"},
	} {
		arguments := []string{
			"decide", "--force", "--router", c.router, "--light", "light.arrow",
		}
		if c.heavy != "" {
			arguments = append(arguments, "--heavy", c.heavy)
		}
		contains(t, must(t, arguments...), c.says)
		d, answers := readDecisions(t)
		if !slices.Equal(d.Prediction, c.predictions) || answers != c.answers {
			t.Errorf("%v: got %+v by %q", arguments, d, answers)
		}
		if fmt.Sprint(d.Escalate) != "[false true false true]" || d.Prior[1] >= 0.9 {
			t.Errorf("%v: got %+v", arguments, d)
		}
		reported := decode[map[string]any](t, arguments...)
		if reported["escalated"] != 2.0 || reported["answered"] != (c.heavy != "") {
			t.Errorf("%v: %v", arguments, reported)
		}
	}
	contains(t, must(t, "inspect", "light.arrow", "decisions.arrow"),
		"light.arrow: logits, 4 rows", "agflow.threshold")
}

// readDecisions reads the decisions, and what answered the images that escalate.
func readDecisions(t *testing.T) (d routing.Decisions, answers string) {
	t.Helper()
	read := func(rec arrow.Record) (routing.Decisions, error) {
		metadata := rec.Schema().Metadata()
		answers, _ = metadata.GetValue("agflow.answers")
		return tables.DecisionsFromRecord(rec)
	}
	d, err := load("decisions.arrow", tables.KindDecisions, read)
	if err != nil {
		t.Fatal(err)
	}
	return d, answers
}

func TestDecideRefusals(t *testing.T) {
	decideFiles(t)
	writeRouter(t, "views.json", "agreement", routing.HeavyAnswers, 0)
	logitsFile(t, "none.arrow")
	must(t, "decide", "--router", "heavy.json", "--light", "light.arrow")
	refuses(t, "decide", map[string]refusal{
		"--router heavy.json": {exitUsage, "--light is missing"},
		"--router none.json --light light.arrow": {exitFailed,
			"can't read none.json"},
		"--router light.arrow --light light.arrow": {exitBadData,
			"the router can't be read: it is not JSON"},
		"--router views.json --light light.arrow": {exitUsage,
			`the prior "agreement" can't be made of logits`},
		"--router heavy.json --light decisions.arrow --output o": {exitBadData,
			"holds agflow decisions, expected logits"},
		"--router heavy.json --light light.arrow --heavy light.arrow": {exitBadData,
			"the heavy expert's logits are [4, 2], expected [2, 2]"},
		"--router heavy.json --light light.arrow --heavy none.arrow": {exitBadData,
			"the heavy expert's logits are [0, 2], expected [2, 2]"},
		"--router heavy.json --light light.arrow --output absent/d.arrow": {exitFailed,
			"can't write absent/d.arrow"},
	})
}
