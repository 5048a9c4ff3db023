package main

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"agflow/bridge/tables"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

func TestRouteWritesRouterAndCurve(t *testing.T) {
	t.Chdir(t.TempDir())
	predictionsFile(t, "predictions.arrow", 4000)
	out := must(t, "route", "--predictions", "predictions.arrow", "--curve", "curve.arrow")
	found, err := tables.ReadRouter("router.json")
	if err != nil {
		t.Fatal(err)
	}
	tolerance := 0.005
	var want routing.Router
	err = tables.Lend("predictions.arrow", tables.KindPredictions, tables.LentSamples,
		func(s tables.Samples) (err error) {
			want, err = routing.NewRouter(s.Samples,
				routing.Request{Tolerance: &tolerance, Confidence: 0.95})
			return err
		})
	if err != nil || !reflect.DeepEqual(found, want) {
		t.Errorf("got %+v; want %+v, %v", found, want, err)
	}
	if found.Prior != "max_probability" || found.Verdict != routing.Pass {
		t.Errorf("%+v", found)
	}
	if found.Ledger.Escalated != 1000 || found.Ledger.Charged != 0.3+0.25 {
		t.Errorf("%+v", found.Ledger)
	}
	if first, _, _ := strings.Cut(out, "\n"); first !=
		"PASS and a gain: 0.550x the heavy expert's MACs per image" {
		t.Error(first)
	}
	contains(t, out,
		"router.json: guaranteed with confidence 0.95, from 4000 held-out images: "+
			"accuracy(cascade) >= accuracy(heavy) - 0.005\n",
		"an image escalates when its max_probability is below 0.3", "random routing",
		"light expert    75.00 (73.63 to 76.32)", "break-even at 70.0 % escalated",
		"agreement        0.5000",
		"\nnext: evaluate it on test images, which chose nothing: agflow evaluate-router "+
			"--router router.json --predictions FILE\n")
	points, err := load("curve.arrow", tables.KindCurve, tables.CurveFromRecord)
	if err != nil || len(points) == 0 || points[0].AccuracyInterval[1] == 0 {
		t.Error(points, err)
	}
	if left, _ := filepath.Glob(".*"); len(left) != 0 {
		t.Error("left behind:", left)
	}
}

// One limit of three is kept, the tolerance by default.
func TestRouteKeepsTheLimitAskedFor(t *testing.T) {
	t.Chdir(t.TempDir())
	predictionsFile(t, "predictions.arrow", 2000)
	for arguments, want := range map[string]string{
		"--charged 0.5": "router.json: guaranteed with confidence 0.95, from 2000 held-out " +
			"images: expected cost per image <= 0.5x",
		"--charged 0.6":  "MACs per image; accuracy not guaranteed\n",
		"--escalation 0": "no image escalates",
		"--escalation 1 --confidence 0.9": "guaranteed with confidence 0.9, from 2000 held-out " +
			"images: escalation <= 1",
		"--prior auto":                     "an image escalates when its max_probability is below",
		"--prior agreement --charged 0.99": "an image escalates when its agreement is below 0.5",
	} {
		line := "route --force --predictions predictions.arrow " + arguments
		contains(t, must(t, strings.Fields(line)...), want)
	}
	refuses(t, "route --predictions predictions.arrow", map[string]refusal{
		"--charged 0.5 --escalation 0.2": {exitUsage, "only one"},
		"--tolerance 0.01 --charged 0.5": {exitUsage, "only one"},
		"--charged 0.2":                  {exitBadData, "the light expert alone costs 0.3"},
		"--prior margin": {exitUsage,
			`no prior "margin"; they have max_probability, agreement`},
		"--escalation 1.5":           {exitUsage, "an escalation of 1.5"},
		"--curve c.arrow --points 1": {exitUsage, "at least its 2 ends"},
		"--answers both":             {exitUsage, "there is no flag --answers"},
		"--output absent/router.json": {exitFailed,
			"can't write absent/router.json: no such file"},
	})
}

// With --ensemble, threshold and curve are those of the answers of both experts, which here are
// correct where one expert is.
func TestRouteForTheEnsemble(t *testing.T) {
	t.Chdir(t.TempDir())
	p := predictionsFile(t, "heavy.arrow", 4000)
	p.Ensemble, p.LightWeight = p.Heavy, 0.25
	p.Heavy = append([]int64{}, p.Heavy...)
	for i := 0; i < len(p.Heavy); i += 8 {
		p.Heavy[i] = 1 // where the light expert has low confidence, and is wrong too
	}
	write(t, "predictions.arrow", tables.PredictionsToRecord(memory.DefaultAllocator, p))
	out := must(t, "route", "--predictions", "predictions.arrow", "--ensemble",
		"--curve", "curve.arrow")
	found, err := tables.ReadRouter("router.json")
	if err != nil || found.Answers != routing.EnsembleAnswers || found.LightWeight != 0.25 {
		t.Errorf("got %+v, %v", found, err)
	}
	if found.AccuracyCascade <= found.AccuracyHeavy {
		t.Errorf("the cascade's %g is not above %g", found.AccuracyCascade, found.AccuracyHeavy)
	}
	contains(t, out, "the ensemble of both experts answers it, the light one with weight 0.25")
	points, err := load("curve.arrow", tables.KindCurve, tables.CurveFromRecord)
	if err != nil || points[len(points)-1].Accuracy != 1 {
		t.Error(points, err)
	}
	refuses(t, "route --predictions heavy.arrow", map[string]refusal{
		"--ensemble": {exitUsage, "both experts"},
	})
}
