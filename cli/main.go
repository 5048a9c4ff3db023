// Command agflow measures gradient flow in Vision Transformers, prunes them by it, and routes
// images between the pruned and the dense model.
//
// The steps on files need no Python. For a step on models this program becomes the host of a
// Python: the same command, built with the tag "python", with CPython in its process.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"

	"github.com/urfave/cli/v2"
)

func main() {
	endOnSignal()
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is the whole program: it prints the outcome and returns the exit status.
func run(arguments []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	err := guarded(func() error { return app.Run(arguments) })
	if number := signals.received.Load(); number != 0 {
		err = interrupted(number) // whatever the step made of it
	}
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "agflow:", printable(sentence(err)))
	return exitStatus(err)
}

func guarded(action func() error) (err error) {
	defer fault.Recover(&err)
	return action()
}

func newApp(stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name: "agflow",
		Usage: "prune Vision Transformers by gradient flow, repair them, " +
			"and send low-confidence images to the full model",
		Version: ipcfile.Version,
		Writer:  stdout, ErrWriter: stderr,
		Flags: globalFlags(), HideHelpCommand: true,
		Commands: []*cli.Command{
			runCommand(), designCommand(), calibrateCommand(), pruneCommand(), finetuneCommand(),
			predictCommand(), evaluateCommand(), exportCommand(),
			statisticsCommand(), mergeCommand(), scoreCommand(), diagnoseCommand(), planCommand(),
			diffCommand(), routeCommand(), evaluateRouterCommand(), decideCommand(),
			inspectCommand(), verifyCommand(),
			benchCommand(), doctorCommand(), completionCommand(),
		},
		EnableBashCompletion: true,
		OnUsageError:         refuseFlag,
		ExitErrHandler:       func(*cli.Context, error) {}, // run prints errors, chooses the status
		Action:               refuseCommand,
	}
}

// refuseCommand is reached when no command, or an unknown one, is named.
func refuseCommand(c *cli.Context) error {
	if !c.Args().Present() {
		return cli.ShowAppHelp(c)
	}
	name := c.Args().First()
	if strings.HasPrefix(name, "-") {
		return usageError("the flag %s stands where a command was expected", name)
	}
	guess := cli.SuggestCommand(c.App.VisibleCommands(), name)
	guess = strings.TrimPrefix(guess, "Did you mean ")
	return usageError("there is no command %q: did you mean %s `agflow --help` lists all commands",
		name, guess)
}
