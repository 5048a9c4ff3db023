package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"
)

// outcome is the result of a command: value for machines (--json), text for people.
type outcome struct {
	value any
	text  string
}

// command completes a command: the common flags, the refusal of what the library would ignore, and
// the printing of its outcome. Without ArgsUsage a command takes flags only; in brackets, ArgsUsage
// is of arguments that may be left out. UsageText is an example.
func command(c cli.Command, action func(*cli.Context) (outcome, error)) *cli.Command {
	json, debug, python := commonFlags()
	if hasDefaultOutput(c.Flags) {
		c.Flags = append(c.Flags, replaceFlag())
	}
	c.Flags = append(c.Flags, json, debug, python)
	c.HideHelp = true
	c.OnUsageError = refuseValue
	before := c.Before
	c.Before = func(ctx *cli.Context) error { // it is run before the checks of the flags
		if err := checkArguments(ctx); err != nil || before == nil {
			return err
		}
		return before(ctx)
	}
	c.Action = func(ctx *cli.Context) error {
		var found outcome
		err := checkWords(ctx)
		if err == nil {
			err = checkPlaces(ctx)
		}
		if err == nil {
			found, err = action(ctx)
		}
		if printing := printOutcome(ctx, found, err); printing != nil {
			return printing
		}
		return reported(err)
	}
	return &c
}

// checkArguments refuses too many or too few arguments and flags.
func checkArguments(c *cli.Context) error {
	form := c.Command.ArgsUsage
	switch {
	case form != "" && !strings.HasPrefix(form, "[") && !c.Args().Present():
		return usageError("%s needs at least one %s",
			c.Command.HelpName, strings.Fields(form)[0])
	case form == "" && c.Args().Present():
		return usageError("%s takes no argument, but %q was given: write lists with commas, such "+
			"as 1,2, and see %[1]s --help", c.Command.HelpName, c.Args().First())
	}
	for _, flag := range c.Command.Flags {
		if needed(flag) && c.String(flag.Names()[0]) == "" {
			return usageError("--%s is missing: see %s --help",
				flag.Names()[0], c.Command.HelpName)
		}
	}
	return nil
}

// reportedError is one that has been printed for machines, where that was asked for.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

func reported(err error) error {
	if err == nil {
		return nil
	}
	return reportedError{err}
}

// printOutcome prints what was found. With --json it prints what went wrong, too, so that a
// machine reads one JSON object either way.
func printOutcome(c *cli.Context, found outcome, failure error) error {
	text := found.text
	if asked(c, "json") && (failure != nil || found.value != nil) {
		var err error
		if text, err = asJSON(found.value, failure); err != nil {
			return err
		}
	}
	if text == "" {
		return nil
	}
	_, err := fmt.Fprintln(c.App.Writer, printable(strings.TrimRight(text, "\n")))
	return err
}

func asJSON(value any, failure error) (string, error) {
	if failure != nil {
		value = map[string]any{
			"error": sentence(failure), "exit": exitStatus(failure), "found": value,
		}
	}
	encoded, err := json.MarshalIndent(value, "", "  ")
	return string(encoded), err
}

var invalidValue = regexp.MustCompile(`^invalid (?:boolean )?value "(.*)" for (?:flag )?-([\w-]+):`)

// refuseValue makes one sentence of the library's complaint about the value of a flag.
func refuseValue(c *cli.Context, err error, _ bool) error {
	text, help := strings.ReplaceAll(err.Error(), "\n", " "), c.Command.HelpName+" --help"
	parts := invalidValue.FindStringSubmatch(text)
	if parts == nil {
		return usageError("%s: see %s", text, help)
	}
	return usageError("--%s is %q, expected %s: see %s",
		parts[2], parts[1], kindOf(c.Command.Flags, parts[2]), help)
}

// kindOf is what the value of a flag must be.
func kindOf(flags []cli.Flag, name string) string {
	for _, flag := range flags {
		if flag.Names()[0] != name {
			continue
		}
		switch flag.(type) {
		case *cli.IntFlag:
			return "a whole number"
		case *cli.Float64Flag:
			return "a number"
		case *cli.IntSliceFlag:
			return "whole numbers with commas between them"
		case *cli.Float64SliceFlag:
			return "numbers with commas between them"
		case *cli.BoolFlag:
			return "true or false"
		}
	}
	return "another value"
}
