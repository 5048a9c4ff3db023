package main

import (
	"agflow/bridge/tables"
	"strings"

	"github.com/urfave/cli/v2"
)

// verdict is the result of verify for one file.
type verdict struct {
	Path  string `json:"path"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	// false for an Arrow file of another program, of which nothing can be verified
	Checksum bool `json:"checksum"`
}

var verified = map[bool]string{
	true: ": ok", false: ": no checksum: an Arrow file of another program, not verified",
}

func verifyCommand() *cli.Command {
	return command(cli.Command{
		Name: "verify", Usage: "check files against their checksums",
		Category: fileSteps, ArgsUsage: "FILE...",
		UsageText: "agflow verify statistics.arrow plan.arrow",
	}, func(c *cli.Context) (outcome, error) {
		var verdicts []verdict
		var lines []string
		var first error // decides the exit status; all files are checked
		for _, path := range c.Args().Slice() {
			own, err := tables.Verify(path)
			if err == nil {
				verdicts = append(verdicts, verdict{Path: path, OK: true, Checksum: own})
				lines = append(lines, path+verified[own])
				continue
			}
			verdicts = append(verdicts, verdict{Path: path, Error: sentence(err)})
			if first == nil {
				first = err
			} else {
				lines = append(lines, sentence(err))
			}
		}
		return outcome{verdicts, strings.Join(lines, "\n")}, first
	})
}
