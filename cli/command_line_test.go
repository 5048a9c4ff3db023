package main

import (
	"errors"
	"strings"
	"testing"
)

func TestFlagsStandAnywhere(t *testing.T) {
	for line, want := range map[string]string{
		"inspect a.arrow --json b.arrow":      "inspect --json -- a.arrow b.arrow",
		"diff a -- --b":                       "diff -- a --b",
		"diagnose s.arrow --seed -1 t.arrow":  "diagnose --seed -1 -- s.arrow t.arrow",
		"diagnose -seed=3 s.arrow":            "diagnose -seed=3 -- s.arrow",
		"--debug bench --python p core":       "--debug --python p bench core",
		"bench core --rounds 3 --json":        "bench core --rounds 3 --json",
		"verify -1 --json":                    "verify --json -- -1",
		"--help":                              "help",
		"plan --macs 0.5 -h":                  "help plan",
		"bench layers --help":                 "help bench layers",
		"--json -V":                           "--json version",
		"plan --version":                      "version",
		"merge one two --output three --json": "merge --output three --json -- one two",
	} {
		found, err := readLine(newApp(nil, nil), strings.Fields(line))
		if got := strings.Join(found.words(), " "); got != want || err != nil {
			t.Errorf("%s: got %q, want %q, %v", line, got, want, err)
		}
	}
}

func TestFlagsThatCannotBeRead(t *testing.T) {
	refuses(t, "", map[string]refusal{
		"plan --mac 0.5":     {exitUsage, "there is no flag --mac: did you mean --macs?"},
		"plan --marcs 0.5":   {exitUsage, "did you mean --macs?"},
		"plan --round_to 4":  {exitUsage, "did you mean --round-to?"},
		"plan --zzz":         {exitUsage, "there is no flag --zzz: see agflow plan --help"},
		"plan --macs":        {exitUsage, "--macs needs a value behind it"},
		"plan --macs --json": {exitUsage, "--macs needs a value, and --json follows it"},
		"--macs 0.5 plan":    {exitUsage, "write it behind the command's name"},
		"--jason plan":       {exitUsage, "there is no flag --jason: did you mean --json?"},
		"evaluate --json=maybe": {exitUsage,
			`--json is "maybe", expected true or false`},
		"plan --floor 0,5": {exitUsage, `--floor is "0,5", expected a number`},
		"calibrate --mean 0.5 0.5 0.5": {exitUsage,
			`takes no argument, but "0.5" was given: write lists with commas`},
	})
}

func TestVersion(t *testing.T) {
	for _, word := range []string{"version", "--version", "-v", "-V"} {
		if out := must(t, word); !strings.HasPrefix(out, "agflow version ") {
			t.Errorf("%s: %s", word, out)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestWhatCannotBePrintedFails(t *testing.T) {
	for _, line := range []string{
		"", "help", "plan --help", "--help", "version", "completion", "--generate-bash-completion",
	} {
		var complaint strings.Builder
		status := run(append([]string{"agflow"}, strings.Fields(line)...), full{}, &complaint)
		if status != exitFailed || !strings.Contains(complaint.String(), "no space left") {
			t.Errorf("%q: status %d: %s", line, status, complaint.String())
		}
	}
}
