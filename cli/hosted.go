package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"agflow/bridge/pyhost"
	"agflow/core/routing"

	"github.com/urfave/cli/v2"
)

const modelSteps = "Models (hosted Python)"

// runHosted runs one function of Python; tests that need no Python replace it.
var runHosted = host

// hostedCommand is a step on models: agflow.commands has a function of its name that does the work.
func hostedCommand(c cli.Command) *cli.Command {
	c.Category = modelSteps
	return hosted(c, underscored(c.Name))
}

// hosted passes the flags of a command to a function of agflow.commands.
func hosted(c cli.Command, function string) *cli.Command {
	return command(c, asking(function))
}

// asking passes the flags of a command to a function of agflow.commands, and returns its result.
func asking(function string) func(*cli.Context) (outcome, error) {
	return func(ctx *cli.Context) (outcome, error) {
		options := pythonOptions(ctx)
		if hasDefaultOutput(ctx.Command.Flags) && !ctx.IsSet("output") {
			run := runOf(ctx, options)
			if err := checkRun(ctx, run); err != nil {
				return outcome{}, err
			}
			options["run"] = run
		}
		encoded, err := json.Marshal(options)
		if err != nil {
			return outcome{}, err
		}
		answer, err := callPython(ctx, "agflow.commands", function, string(encoded))
		if err != nil {
			return outcome{}, err
		}
		var result struct {
			Summary string          `json:"summary"`
			Counts  routing.Verdict `json:"counts"` // where --check is a flag
		}
		if err := json.Unmarshal([]byte(answer), &result); err != nil {
			err = fmt.Errorf("agflow.commands.%s returned no JSON object: %w", function, err)
			return outcome{}, pythonError(err)
		}
		if answer == "null" {
			return outcome{}, nil // the first of the processes that torchrun started reports
		}
		return outcome{json.RawMessage(answer), result.Summary}, checkError(ctx, result.Counts)
	}
}

// callPython runs one function of Python and, with --debug, prints the traceback of its exception.
func callPython(c *cli.Context, module, function, argument string) (string, error) {
	answer, err := runHosted(python(c), module, function, argument)
	var exception *pyhost.Error
	if errors.As(err, &exception) && asked(c, "debug") {
		fmt.Fprint(c.App.ErrWriter, exception.Traceback)
	}
	return answer, err
}

// pythonOptions is what Python gets of a command's flags: names with underscores, nil for what has
// neither been given nor has a default.
func pythonOptions(c *cli.Context) map[string]any {
	options := map[string]any{}
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		if groupOf(flag) == everywhere || name == checkFlag().Name {
			continue // of the command itself
		}
		options[underscored(name)] = chosen(c, flag, name)
	}
	if hasDefaultOutput(c.Command.Flags) {
		delete(options, replaceFlag().Name) // it was seen to before
	}
	return options
}

// chosen is the value of a flag, nil for none.
func chosen(c *cli.Context, flag cli.Flag, name string) any {
	switch f := flag.(type) {
	case *cli.StringFlag:
		if value := c.String(name); value != "" {
			return value
		}
	case *cli.BoolFlag:
		return c.Bool(name)
	case *cli.StringSliceFlag:
		return append([]string{}, c.StringSlice(name)...)
	case *cli.IntSliceFlag:
		return append([]int{}, c.IntSlice(name)...)
	case *cli.Float64SliceFlag:
		return append([]float64{}, c.Float64Slice(name)...)
	case *cli.IntFlag:
		if c.IsSet(name) || f.DefaultText == "" {
			return c.Int(name)
		}
	case *cli.Float64Flag:
		if c.IsSet(name) || f.DefaultText == "" {
			return c.Float64(name)
		}
	}
	return nil
}
