package main

import (
	"testing"

	"agflow/core/routing"
)

// A router that one file calibrated is evaluated on another.
func TestEvaluateRouter(t *testing.T) {
	t.Chdir(t.TempDir())
	predictionsFile(t, "held-out.arrow", 4000)
	predictionsFile(t, "test.arrow", 2000)
	must(t, "route", "--predictions", "held-out.arrow")
	command := []string{
		"evaluate-router", "--router", "router.json", "--predictions", "test.arrow",
	}
	contains(t, must(t, command...),
		"PASS and a gain: 0.550x the heavy expert's MACs per image\nrouter.json: guaranteed",
		"2000 test images: an image escalates when its max_probability is below 0.3",
		"light expert    75.00 (73.06 to 76.85)", "cascade         100.00", "0.550x",
		"random routing  81.25", "+0.00 points (-0.19 to +0.19), 0 images lost and 0 gained",
		"\nnext: route new images: agflow decide --router router.json")
	if found := decode[routing.RouterEvaluation](t, command...); found.Ledger.Escalated != 500 {
		t.Errorf("%+v", found)
	}
	routerFile(t, "both.json", routing.EnsembleAnswers, 0.5)
	refuses(t, "evaluate-router", map[string]refusal{
		"--router router.json": {exitUsage, "--predictions is missing"},
		"--router none.json --predictions test.arrow": {exitFailed,
			"can't read none.json"},
		"--router test.arrow --predictions test.arrow": {exitBadData,
			"the router can't be read: it is not JSON"},
		"--router both.json --predictions test.arrow":    {exitUsage, "ensemble"},
		"--router router.json --predictions router.json": {exitBadData, "router.json"},
	})
}
