package main

import (
	"encoding/json"
	"strings"
	"testing"

	"agflow/core/routing"
)

// A router that one file calibrated is judged on another; what cannot be judged is refused by what is wrong with it.
func TestEvaluateRouter(t *testing.T) {
	t.Chdir(t.TempDir())
	predictionsFile(t, "held-out.arrow", 4000)
	predictionsFile(t, "judging.arrow", 2000)
	must(t, "route", "--predictions", "held-out.arrow")
	out := must(t, "judge", "--router", "router.json", "--predictions", "judging.arrow")
	for _, line := range []string{
		"router.json on 2000 images: an image escalates when its max_probability is below 0.3", "light expert    75.00", "cascade         100.00", "0.550x",
		"random routing  81.25", "0 images lost and 0 gained",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
	var found routing.RouterEvaluation
	if err := json.Unmarshal([]byte(must(t, "judge", "--router", "router.json", "--predictions", "judging.arrow", "--json")), &found); err != nil || found.Ledger.Escalated != 500 {
		t.Errorf("%+v, %v", found, err)
	}
	routerFile(t, "both.json", routing.EnsembleAnswers, 0.5)
	for arguments, want := range map[string]struct {
		status int
		says   string
	}{
		"--router router.json":                               {exitUsage, "--predictions is missing"},
		"--router none.json --predictions judging.arrow":     {exitFailed, "can't read none.json"},
		"--router judging.arrow --predictions judging.arrow": {exitBadData, "the router is not the JSON expected"},
		"--router both.json --predictions judging.arrow":     {exitUsage, "no answers of both experts"},
		"--router router.json --predictions router.json":     {exitBadData, "router.json"},
	} {
		_, complaint, status := agflow(append([]string{"judge"}, strings.Fields(arguments)...)...)
		if status != want.status || !strings.Contains(complaint, want.says) {
			t.Errorf("%s: status %d, %s", arguments, status, complaint)
		}
	}
}
