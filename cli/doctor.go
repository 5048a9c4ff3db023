package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"agflow/bridge/ipcfile"
	"agflow/bridge/pyhost"
	"agflow/core/statistics"

	"github.com/urfave/cli/v2"
)

// check is one line of the doctor. Without a Cure, Found is a sentence that ends with the cure.
type check struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Found string `json:"found"`
	Cure  string `json:"cure,omitempty"`
}

func doctorCommand() *cli.Command {
	return command(cli.Command{
		Name: "doctor", Usage: "check the installation; each check that fails names its cure",
		Category: helpCategory, UsageText: "agflow doctor",
	}, func(c *cli.Context) (outcome, error) {
		checks := append([]check{checkSelf()}, checkPython(c)...)
		var failed error
		var b strings.Builder
		for _, line := range checks {
			if line.OK {
				fmt.Fprintf(&b, "ok      %-12s %s\n", line.Name, line.Found)
				continue
			}
			fmt.Fprintf(&b, "failed  %-12s %s\n", line.Name, line.Found)
			if line.Cure != "" {
				fmt.Fprintf(&b, "        cure: %s\n", line.Cure)
			}
			failed = pythonError(errors.New(
				"the installation for model steps is incomplete; the steps on files work"))
		}
		return outcome{checks, b.String()}, failed
	})
}

func checkSelf() check {
	program, _ := os.Executable() // after a step to the host, this is the host
	found := fmt.Sprintf("%s, file format %d, %s kernel, %s %s/%s, %s", ipcfile.Version,
		ipcfile.Format, statistics.KernelName(), runtime.Version(), runtime.GOOS, runtime.GOARCH,
		program)
	return check{Name: "agflow", OK: true, Found: found}
}

// checkPython asks the hosted Python about itself, if it can be reached.
func checkPython(c *cli.Context) []check {
	program, err := interpreter(python(c))
	if err != nil {
		return []check{{Name: "interpreter", Found: sentence(err)}}
	}
	checks := []check{{Name: "interpreter", OK: true, Found: program}}
	answer, err := callPython(c, "agflow._doctor", "report", "{}")
	if err == nil {
		var more []check
		err = json.Unmarshal([]byte(answer), &more)
		checks = append(checks, more...)
	}
	if err != nil {
		failed := check{Name: "package", Found: sentence(err)}
		if exception := (*pyhost.Error)(nil); errors.As(err, &exception) {
			failed.Cure = program + " -m pip install agflow"
		}
		checks = append(checks, failed)
	}
	return checks
}
