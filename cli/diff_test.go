package main

import "testing"

func TestDiff(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	must(t, "score", "--statistics", "s.arrow")
	plan := []string{"plan", "--scores", "scores.arrow", "--round-to", "1"}
	must(t, append(plan, "--macs", "0.6", "--output", "a.arrow")...)
	must(t, append(plan, "--macs", "0.4", "--output", "b.arrow")...)
	found := decode[struct {
		Jaccard float64
		Layers  []struct{ A, B, Both int }
	}](t, "diff", "a.arrow", "b.arrow")
	if found.Jaccard != 0.5 || len(found.Layers) != 2 {
		t.Errorf("%+v", found)
	}
	if l := found.Layers[1]; l.A != 2 || l.B != 1 || l.Both != 1 {
		t.Errorf("%+v", l)
	}
	contains(t, must(t, "diff", "a.arrow", "b.arrow"), "0.500", "all")
	refuses(t, "diff", map[string]refusal{
		"s.arrow":         {exitUsage, "compares 2 plans, and 1 were named"},
		"s.arrow s.arrow": {exitBadData, "holds agflow statistics, expected plan"},
	})
}
