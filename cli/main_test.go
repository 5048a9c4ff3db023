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
		for _, arguments := range [][]string{
			{c.Name, "--help"}, {"--help", c.Name}, {"help", c.Name},
		} {
			out := strings.Join(strings.Fields(must(t, arguments...)), " ")
			if c.Usage == "" || !strings.Contains(out, c.Usage) {
				t.Errorf("%s: %s", arguments, out)
			}
			if !strings.Contains(out, "Example: agflow "+c.Name) && len(c.Subcommands) == 0 {
				t.Errorf("%s has no example: %s", c.Name, out)
			}
		}
	}
}

func TestUnknownCommands(t *testing.T) {
	refuses(t, "", map[string]refusal{
		"frob":       {exitUsage, `there is no command "frob": see `},
		"scroe":      {exitUsage, `did you mean score? See `},
		"calib":      {exitUsage, `did you mean calibrate?`},
		"judge":      {exitUsage, `there is no command "judge"`},
		"help plam":  {exitUsage, `did you mean plan?`},
		"bench coer": {exitUsage, `there is no benchmark "coer": did you mean core?`},
	})
}
