package main

import (
	"strings"
	"testing"

	"agflow/core/fault"
)

func TestPanicBecomesAnError(t *testing.T) {
	err := guarded(func() error { panic("broken") })
	if fault.CodeOf(err) != fault.Internal || !strings.Contains(err.Error(), "broken") {
		t.Error(err)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	for _, c := range newApp(nil, nil).Commands {
		if out := must(t, c.Name, "--help"); c.Usage == "" || !strings.Contains(out, c.Usage) {
			t.Errorf("%s: %s", c.Name, out)
		}
	}
}

func TestUnknownCommands(t *testing.T) {
	refuses(t, "", map[string]refusal{
		"frob":  {exitUsage, `there is no command "frob": did you mean "`},
		"scroe": {exitUsage, `did you mean "score"?`},
		"judge": {exitUsage, `there is no command "judge"`},
	})
}
