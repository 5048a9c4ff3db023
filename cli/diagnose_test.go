package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// One file gives ranges and agreements of what it has recorded; criteria that need weights are left out, by name refused.
func TestDiagnoseOneFile(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "a.arrow", 1)
	var found diagnosis
	if err := json.Unmarshal([]byte(must(t, "diagnose", "--json", "a.arrow")), &found); err != nil {
		t.Fatal(err)
	}
	if found.Stability != nil || len(found.Ranges) < 5 || found.Ranges[0].Criterion != "agf" || *found.Ranges[0].Overall.MaxOverMedian != 16/6.5 {
		t.Errorf("%+v", found)
	}
	for _, r := range found.Ranges {
		if r.Criterion == "magnitude" {
			t.Error("magnitude was scored without weights")
		}
	}
	out := must(t, "diagnose", "--criteria", "agf,activation", "a.arrow")
	if !strings.Contains(out, "agf         2.5x") || !strings.Contains(out, "agf, activation") || strings.Contains(out, "fisher") {
		t.Error(out)
	}
	if _, complaint, status := agflow("diagnose", "--criteria", "wanda", "a.arrow"); status != exitBadData || !strings.Contains(complaint, "wanda") {
		t.Error(status, complaint)
	}
}

// Several files, one a batch, also tell how stable the choice is: these batches all agree.
func TestDiagnoseBatches(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "a.arrow", 1)
	statisticsFile(t, "b.arrow", 2)
	out := must(t, "diagnose", "--sizes", "1,3", "--draws", "5", "a.arrow", "b.arrow")
	if !strings.Contains(out, "agf by so many of 2 batches") || !strings.Contains(out, "\n3                            1.000") {
		t.Error(out)
	}
	if _, complaint, status := agflow("diagnose", "--draws", "0", "a.arrow", "b.arrow"); status != exitUsage || !strings.Contains(complaint, "0 draws") {
		t.Error(status, complaint)
	}
}

func TestBenchNeedsAKnownBenchmark(t *testing.T) {
	for arguments, says := range map[string]string{
		"bench":            "needs the name of a benchmark",
		"bench cores":      `no benchmark "cores"`,
		"bench core x":     "agflow bench core takes no argument",
		"bench core --rnd": "agflow bench core --help",
	} {
		if _, complaint, status := agflow(strings.Fields(arguments)...); status != exitUsage || !strings.Contains(complaint, says) {
			t.Errorf("%s: %d %s", arguments, status, complaint)
		}
	}
}
