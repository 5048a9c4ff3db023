// Command agflow measures gradient flow in vision networks, prunes them by it, and routes
// images between the pruned and the dense model.
//
// The steps on files need no Python. For a step on models this program becomes the host of a
// Python: the same command, built with the tag "python", with CPython in its process.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"agflow/core/fault"
	"agflow/core/words"

	"github.com/urfave/cli/v2"
)

func main() {
	endOnSignal()
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is the whole program: it prints the outcome and returns the exit status.
func run(arguments []string, stdout, stderr io.Writer) int {
	app, words := newApp(stdout, stderr), arguments[1:]
	err := guarded(func() error {
		if last := len(words) - 1; last >= 0 && words[last] == completionFlag {
			return printCompletions(app, words[:last])
		}
		line, err := readLine(app, words)
		if err != nil {
			return err
		}
		return app.Run(append([]string{app.Name}, line.words()...))
	})
	if number := signals.received.Load(); number != 0 {
		err = interrupted(number) // whatever the step made of it
	}
	if err == nil {
		return exitOK
	}
	var printed reportedError
	if wantsJSON(words) && !errors.As(err, &printed) {
		text, _ := asJSON(nil, err) // texts and a number always are JSON
		fmt.Fprintln(stdout, printable(text))
	}
	fmt.Fprintln(stderr, "agflow:", printable(sentence(err)))
	return exitStatus(err)
}

// wantsJSON looks for --json in a line that may be wrong.
func wantsJSON(words []string) bool {
	inEnvironment, _ := strconv.ParseBool(os.Getenv(env("json")[0]))
	return inEnvironment || slices.Contains(words, "--json")
}

func guarded(action func() error) (err error) {
	defer fault.Recover(&err)
	return action()
}

func newApp(stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name: "agflow",
		Usage: "prune vision networks by gradient flow, repair them, " +
			"and send low-confidence images to the full model",
		Writer: stdout, ErrWriter: stderr,
		Flags: globalFlags(), HideHelp: true, HideVersion: true,
		Commands: []*cli.Command{
			runCommand(), shrinkCommand(), designCommand(),
			calibrateCommand(), pruneCommand(), finetuneCommand(),
			predictCommand(), evaluateCommand(), exportCommand(), serveCommand(),
			statisticsCommand(), mergeCommand(), scoreCommand(), diagnoseCommand(), planCommand(),
			diffCommand(), routeCommand(), evaluateRouterCommand(), decideCommand(),
			monitorCommand(),
			inspectCommand(), verifyCommand(),
			benchCommand(),
			helpCommand(), versionCommand(), doctorCommand(), completionCommand(),
		},
		OnUsageError:   refuseValue,
		ExitErrHandler: func(*cli.Context, error) {}, // run prints errors, chooses the status
		Action:         refuseCommand,
	}
}

// refuseCommand is reached when no command, or an unknown one, is named.
func refuseCommand(c *cli.Context) error {
	if !c.Args().Present() {
		_, err := fmt.Fprint(c.App.Writer, appHelp(c.App))
		return err
	}
	return unknownCommand(c.App.Commands, "command", c.Args().First(), "agflow help")
}

// didYouMeanOrSee begins a sentence that ends with where to look, and guesses what was meant.
func didYouMeanOrSee(prefix, word string, known []string) string {
	if guess := words.Nearest(word, known); guess != "" {
		return "did you mean " + prefix + guess + "? See"
	}
	return "see"
}

// unknownCommand is the error for a name that no command has, with the one that was meant.
func unknownCommand(commands []*cli.Command, kind, name, list string) error {
	var known []string
	for _, command := range commands {
		known = append(known, command.Name)
	}
	return usageError("there is no %s %q: %s `%s`, which lists all",
		kind, name, didYouMeanOrSee("", name, known), list)
}
