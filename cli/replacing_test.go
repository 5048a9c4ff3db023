package main

import (
	"encoding/json"
	"os"
	"testing"

	"agflow/bridge/tables"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// The default output of a step on files is replaced by the same bytes only; the rest is as asked.
func TestDefaultOutputsOfOtherRunsStay(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	plan := []string{"plan", "--statistics", "s.arrow", "--round-to", "1", "--macs"}
	must(t, append(plan, "0.6")...)
	must(t, append(plan, "0.6")...)
	before := fileOf(t, "plan.arrow")
	other := "plan --statistics s.arrow --round-to 1 --macs 0.8"
	refuses(t, other, map[string]refusal{
		"": {exitFailed, "plan.arrow is of another run, or not agflow's, and the default name " +
			"would replace it: name another file with --output, or replace this one with --force"},
	})
	if string(fileOf(t, "plan.arrow")) != string(before) {
		t.Error("the plan of the other run was replaced")
	}
	must(t, append(plan, "0.8", "--output", "plan.arrow")...)
	must(t, append(plan, "0.6", "--force")...)
	if string(fileOf(t, "plan.arrow")) != string(before) {
		t.Error("--force did not replace the plan")
	}
	if err := os.WriteFile("router.json", []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	predictionsFile(t, "p.arrow", 400)
	refuses(t, "route --predictions p.arrow", map[string]refusal{
		"": {exitFailed, "router.json is of another run, or not agflow's"},
	})
}

// A step on models knows its own output again before Python starts, by what was asked and by what
// the files hold.
func TestHostedDefaultOutputsOfOtherRunsStay(t *testing.T) {
	t.Chdir(fill(t, map[string]string{"l/config.json": "{}", "map.csv": "cat,1"}))
	last := fakePython(t, `{"summary": "done"}`, nil)
	run := func(arguments ...string) string {
		t.Helper()
		must(t, arguments...)
		var options struct{ Run string }
		if err := json.Unmarshal([]byte(last.options), &options); err != nil {
			t.Fatal(err)
		}
		return options.Run
	}
	calibrate := []string{"calibrate", "--class-map", "map.csv"}
	table := statisticsFile(t, "statistics.arrow", 1)
	refuses(t, "calibrate", map[string]refusal{"": {exitFailed, "of another run"}})
	made := run(append(calibrate, "--force")...)
	table.Metadata = map[string]string{runKey: made}
	write(t, "statistics.arrow", tables.StatisticsToRecord(memory.DefaultAllocator, table))
	if again := run(append(calibrate, "--workers", "2")...); again != made {
		t.Error("the same run is not known again")
	}
	if named := run(append(calibrate, "--output", "statistics.arrow")...); named != "" {
		t.Errorf("an output that was named is of run %q", named)
	}
	refuses(t, "calibrate --class-map map.csv", map[string]refusal{
		"--batches 3":      {exitFailed, "--force"},
		"--model l":        {exitFailed, "--output"},
		"--dtype bfloat16": {exitFailed, "statistics.arrow"},
	})
	if err := os.WriteFile("map.csv", []byte("cat,2"), 0o666); err != nil {
		t.Fatal(err)
	}
	refuses(t, "calibrate --class-map map.csv", map[string]refusal{"": {exitFailed, "--force"}})
}
