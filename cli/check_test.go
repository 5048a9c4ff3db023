package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"agflow/bridge/tables"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// changed writes predictions as predictionsFile does, but for what change makes of them.
func changed(t *testing.T, path string, n int, change func(*tables.Predictions)) {
	t.Helper()
	p := predictionsFile(t, path, n)
	change(&p)
	write(t, path, tables.PredictionsToRecord(memory.DefaultAllocator, p))
}

// Each count fails the check by itself, and only with --check; the router is written all the same.
func TestCheckOfARouter(t *testing.T) {
	t.Chdir(t.TempDir())
	changed(t, "gain.arrow", 4000, func(*tables.Predictions) {})
	changed(t, "loss.arrow", 4000, func(p *tables.Predictions) { p.Cost.Light = 85 })
	changed(t, "few.arrow", 100, func(p *tables.Predictions) {
		for i := range p.Light {
			p.Light[i] = 0
		}
	})
	changed(t, "fail.arrow", 4000, func(p *tables.Predictions) {
		for i := range p.Light { // confident, and wrong
			p.Light[i], p.Priors[0].Values[i] = 1, 0.99
		}
	})
	for predictions, want := range map[string]struct{ verdict, first, cure string }{
		"gain.arrow": {routing.Pass, "PASS and a gain: 0.550x", "next: evaluate it"},
		"loss.arrow": {routing.Pass, "PASS, but a LOSS: 1.100x",
			"make the light expert smaller or more accurate"},
		"few.arrow": {routing.InsufficientData, "INSUFFICIENT DATA and a LOSS: 1.300x",
			"hold out about"},
		"fail.arrow": {routing.Fail, "FAIL and a LOSS: 1.300x", "more accurate"},
	} {
		arguments := []string{"route", "--force", "--predictions", predictions}
		out := must(t, arguments...)
		if !strings.HasPrefix(out, want.first) || !strings.Contains(out, want.cure) {
			t.Errorf("%s: %s", predictions, out)
		}
		if err := os.Remove("router.json"); err != nil {
			t.Fatal(err)
		}
		again, complaint, status := agflow(append(arguments, "--check")...)
		if again != out {
			t.Errorf("%s: --check changes the output: %s", predictions, again)
		}
		router, err := tables.ReadRouter("router.json")
		if err != nil || router.Verdict != want.verdict {
			t.Error(router.Verdict, err)
		}
		if predictions == "gain.arrow" {
			if status != exitOK || complaint != "" {
				t.Errorf("%s: %d %s", predictions, status, complaint)
			}
			continue
		}
		if status != exitCheck || strings.Count(complaint, "\n") != 1 ||
			!strings.HasPrefix(complaint, "agflow: --check: "+want.first) ||
			!strings.Contains(complaint, want.cure) {
			t.Errorf("%s: %d %s", predictions, status, complaint)
		}
	}
}

// A router is checked on test images, too: by their costs, and by whether they break its limit.
func TestCheckOfAnEvaluation(t *testing.T) {
	t.Chdir(t.TempDir())
	predictionsFile(t, "held-out.arrow", 4000)
	must(t, "route", "--predictions", "held-out.arrow", "--check")
	changed(t, "shifted.arrow", 1000, func(p *tables.Predictions) {
		for i := range 100 {
			p.Light[4*i+1] = 1 // wrong, where it is confident
		}
	})
	changed(t, "uncertain.arrow", 1000, func(p *tables.Predictions) {
		for i := range p.Light {
			p.Priors[0].Values[i] = 0.1
		}
	})
	for predictions, want := range map[string]string{
		"shifted.arrow":   "FAIL, but a gain: 0.550x",
		"uncertain.arrow": "PASS, but a LOSS: 1.300x",
	} {
		out, complaint, status := agflow("evaluate-router", "--router", "router.json",
			"--predictions", predictions, "--check")
		if status != exitCheck || !strings.HasPrefix(out, want) ||
			!strings.HasPrefix(complaint, "agflow: --check: "+want) {
			t.Errorf("%s: %d %s%s", predictions, status, out, complaint)
		}
	}
}

// With --json a failed check is one object, as other failures are.
func TestCheckAsJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	changed(t, "loss.arrow", 4000, func(p *tables.Predictions) { p.Cost.Light = 85 })
	out, _, status := agflow("--json", "route", "--predictions", "loss.arrow", "--check")
	var reported struct {
		Error string
		Exit  int
		Found counted
	}
	if err := json.Unmarshal([]byte(out), &reported); err != nil {
		t.Fatal(err)
	}
	if status != exitCheck || reported.Exit != exitCheck || reported.Found.Counts.Deploy ||
		reported.Found.Verdict != routing.Pass || reported.Found.Counts.Cost != routing.Loss ||
		!strings.HasPrefix(reported.Error, "--check: PASS, but a LOSS") {
		t.Errorf("%d %+v", status, reported)
	}
}

// Python's verdict is checked here; its command knows nothing of the flag.
func TestCheckOfAHostedCommand(t *testing.T) {
	for answer, want := range map[string]int{
		`{"summary": "s", "counts": {"deploy": true, "line": "PASS and a gain"}}`:   exitOK,
		`{"summary": "s", "counts": {"deploy": false, "line": "PASS, but a LOSS"}}`: exitCheck,
	} {
		last := fakePython(t, answer, nil)
		for _, line := range []string{"run --check", "design --output o --check"} {
			out, complaint, status := agflow(strings.Fields(line)...)
			if status != want || out != "s\n" || strings.Contains(last.options, "check\"") {
				t.Errorf("%s: %d %s%s%s", line, status, out, complaint, last.options)
			}
			if want == exitCheck && !strings.Contains(complaint, "PASS, but a LOSS") {
				t.Error(complaint)
			}
		}
		must(t, "run")
	}
}
