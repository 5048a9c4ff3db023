package main

import "testing"

func TestBenchNeedsAKnownBenchmark(t *testing.T) {
	refuses(t, "bench", map[string]refusal{
		"":           {exitUsage, "needs the name of a benchmark"},
		"cores":      {exitUsage, `no benchmark "cores"`},
		"core x":     {exitUsage, "agflow bench core takes no argument"},
		"core --rnd": {exitUsage, "agflow bench core --help"},
	})
}
