package main

import (
	"encoding/json"
	"os"
	"testing"
)

func TestUsageErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	refuses(t, "", map[string]refusal{
		"run --epoch 3": {exitUsage,
			"there is no flag --epoch: did you mean --epochs? See agflow run --help"},
		"run --macs 0.5 --pruning-ratio 0.5": {exitUsage, "both given"},
		"run --seed many": {exitUsage,
			`--seed is "many", expected a whole number`},
		"design --output o --macs 350M": {exitUsage,
			`--macs is "350M", expected numbers with commas between them`},
		"finetune --light l": {exitUsage, "--output is missing"},
		"score --seed -1 --statistics s.arrow": {exitUsage,
			"--seed is -1"},
		"score --statistics s.arrow extra": {exitUsage, `takes no argument, but "extra"`},
		"inspect":                          {exitUsage, "needs at least one FILE"},
	})
}

func TestFileErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	if err := os.WriteFile("foreign.arrow", []byte("ARROW1 but not ours"), 0o666); err != nil {
		t.Fatal(err)
	}
	refuses(t, "", map[string]refusal{
		"score --statistics s.arrow --criterion agff":      {exitUsage, "agf"},
		"score --statistics s.arrow --criterion magnitude": {exitBadData, "weights"},
		"verify foreign.arrow": {exitBadData,
			"foreign.arrow can't be read: it doesn't begin and end as an Arrow file does"},
		"inspect absent.arrow":        {exitFailed, "can't read absent.arrow: no such file"},
		"statistics --tensors absent": {exitFailed, "absent"},
	})
}

// With --json a machine finds one JSON object on stdout, whatever happens.
func TestJSONReportsFailures(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	for _, arguments := range [][]string{
		{"--json", "verify", "s.arrow", "absent.arrow"},
		{"verify", "--json", "s.arrow", "absent.arrow"},
	} {
		out, _, status := agflow(arguments...)
		var reported struct {
			Error string
			Exit  int
			Found []verdict
		}
		if err := json.Unmarshal([]byte(out), &reported); err != nil {
			t.Fatal(err, out)
		}
		if status != exitFailed || reported.Exit != exitFailed || reported.Error == "" {
			t.Errorf("status %d, %+v", status, reported)
		}
		if found := reported.Found; len(found) != 2 || !found[0].OK || found[1].OK {
			t.Errorf("found %+v", found)
		}
	}
}
