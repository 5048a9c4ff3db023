package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// outcome is the result of a command: value for machines (--json), text for people.
type outcome struct {
	value any
	text  string
}

// helpCategory is of the commands about agflow itself.
const helpCategory = "Help"

// command completes a command: the common flags, the refusal of what urfave/cli would ignore, and
// the printing of its outcome. Without ArgsUsage a command takes flags only.
func command(c cli.Command, action func(*cli.Context) (outcome, error)) *cli.Command {
	json, debug, python := commonFlags()
	c.Flags = append(c.Flags, json, debug, python)
	c.HideHelpCommand = true
	c.OnUsageError = refuseFlag
	c.Action = func(ctx *cli.Context) error {
		var found outcome
		err := checkArguments(ctx)
		if err == nil {
			found, err = action(ctx)
		}
		if printing := printOutcome(ctx, found, err); printing != nil {
			return printing
		}
		return err
	}
	return &c
}

// checkArguments refuses flags behind arguments, which urfave/cli takes for arguments, and too many
// or too few arguments and flags.
func checkArguments(c *cli.Context) error {
	for _, argument := range c.Args().Slice() {
		if strings.HasPrefix(argument, "-") && len(argument) > 1 {
			return usageError("the flag %s stands behind the argument %q: put all flags first",
				argument, c.Args().First())
		}
	}
	takesArguments := c.Command.ArgsUsage != ""
	switch {
	case takesArguments && !c.Args().Present():
		return usageError("%s needs at least one %s",
			c.Command.HelpName, strings.Fields(c.Command.ArgsUsage)[0])
	case !takesArguments && c.Args().Present():
		return usageError("%s takes no argument, but %q was given: see %[1]s --help",
			c.Command.HelpName, c.Args().First())
	}
	for _, flag := range c.Command.Flags {
		if needed(flag) && c.String(flag.Names()[0]) == "" {
			return usageError("--%s is missing: see %s --help",
				flag.Names()[0], c.Command.HelpName)
		}
	}
	return nil
}

// printOutcome prints what was found. With --json it prints what went wrong, too, so that a
// machine reads one JSON object either way.
func printOutcome(c *cli.Context, found outcome, failure error) error {
	text := found.text
	if asked(c, "json") && (failure != nil || found.value != nil) {
		if failure != nil {
			found.value = map[string]any{
				"error": sentence(failure), "exit": exitStatus(failure), "found": found.value,
			}
		}
		encoded, err := json.MarshalIndent(found.value, "", "  ")
		if err != nil {
			return err
		}
		text = string(encoded)
	}
	if text == "" {
		return nil
	}
	_, err := fmt.Fprintln(c.App.Writer, printable(strings.TrimRight(text, "\n")))
	return err
}

// refuseFlag makes one sentence of urfave/cli's complaint about a flag, and guesses what was meant.
func refuseFlag(c *cli.Context, err error, _ bool) error {
	help, flags := "agflow --help", c.App.Flags
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != c.App.Name {
		help, flags = c.Command.HelpName+" --help", c.Command.Flags
	}
	unknown, isUnknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !isUnknown {
		return usageError("%s: see %s", strings.ReplaceAll(err.Error(), "\n", " "), help)
	}
	return usageError("there is no flag --%s: did you mean %s? See %s",
		strings.TrimLeft(unknown, "-"), cli.SuggestFlag(flags, unknown, false), help)
}
