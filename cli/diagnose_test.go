package main

import (
	"strings"
	"testing"
)

// One file gives ranges and agreements of what it has recorded. Criteria that need weights are
// left out, and refused where they are named.
func TestDiagnoseOneFile(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "a.arrow", 1)
	found := decode[diagnosis](t, "diagnose", "a.arrow")
	if found.Stability != nil || len(found.Ranges) < 5 {
		t.Fatalf("%+v", found)
	}
	first := found.Ranges[0]
	if first.Criterion != "agf" || *first.Overall.MaxOverMedian != 16/6.5 {
		t.Errorf("%+v", first)
	}
	for _, r := range found.Ranges {
		if r.Criterion == "magnitude" {
			t.Error("magnitude was scored without weights")
		}
	}
	out := must(t, "diagnose", "--criteria", "agf,activation", "a.arrow")
	contains(t, out, "agf         2.5x", "agf, activation")
	if strings.Contains(out, "fisher") {
		t.Error(out)
	}
	refuses(t, "diagnose", map[string]refusal{
		"--criteria wanda a.arrow": {exitBadData, "wanda"},
	})
}

// Several files, one a batch, also say how stable the choice is: these batches all agree.
func TestDiagnoseBatches(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "a.arrow", 1)
	statisticsFile(t, "b.arrow", 2)
	out := must(t, "diagnose", "--sizes", "1,3", "--draws", "5", "a.arrow", "b.arrow")
	contains(t, out, "agf by draws from 2 batches", "\n3 ", " 1.000 ")
	refuses(t, "diagnose", map[string]refusal{
		"--draws 0 a.arrow b.arrow": {exitUsage, "0 draws"},
	})
}
