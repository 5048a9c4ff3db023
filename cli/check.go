package main

import (
	"fmt"

	"agflow/core/routing"

	"github.com/urfave/cli/v2"
)

// checkFlag is of the commands that end in a verdict on a cascade. Python need not know of it.
func checkFlag() *cli.BoolFlag {
	return &cli.BoolFlag{
		Name: "check", EnvVars: env("check"), DisableDefaultText: true, Category: outputGroup,
		Usage: fmt.Sprintf("for CI: exit with status %d on FAIL, INSUFFICIENT DATA or LOSS, by "+
			"expected cost or clearly by the clock; the outputs are written all the same",
			exitCheck),
	}
}

// checkError is the error of --check where a cascade should not be deployed.
func checkError(c *cli.Context, v routing.Verdict) error {
	if !c.Bool("check") || v.Deploy {
		return nil
	}
	return statusError{fmt.Errorf("--check: %s; %s", v.Line, v.Cure), exitCheck}
}
