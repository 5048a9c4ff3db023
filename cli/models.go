package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"agflow/bridge/pyhost"

	"github.com/urfave/cli/v2"
)

const modelSteps = "Models (hosted Python)"

func runCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name: "run", Usage: "the whole road: calibrate, plan, cut, repair, fine-tune, route, report",
		Flags: []cli.Flag{
			modelFlag(), weightsFlag(), dataFlag(), text("eval", "example:test", "`DATA` that judges, and serves nothing else"),
			place("output", "agflow-run", "`FOLDER` of the results"),
			&cli.StringFlag{Name: "macs", DefaultText: "0.35", Usage: "`MACS` of the light expert: a share of the model's, or 350M, 1.2G"},
			ratioFlag(), criterionFlag(), roundToFlag(), groupsFlag(), ignoredLayersFlag(), compensateFlag(), batchesFlag(), batchSizeFlag(),
			number("epochs", 5, "", "fine-tune for `N` epochs"), fraction("lr", 0.001, "peak learning `RATE` of the fine-tuning"), limitFlag(), number("eval-limit", 0, "all", "judge on at most `N` images"),
			toleranceFlag(), confidenceFlag(), seedFlag(), labelFlag(),
		},
		Before: refuseTwoBudgets,
	})
}

func calibrateCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name: "calibrate", Usage: "measure the statistics of a model's units",
		Flags: []cli.Flag{
			modelFlag(), weightsFlag(), dataFlag(), batchesFlag(), batchSizeFlag(), groupsFlag(),
			place("dump", "", "also write the raw tensors into `FOLDER`"), place("output", "statistics.arrow", "statistics `FILE` to write"),
			toggle("weight-gradients", "also sum weight times gradient, which taylor_weight needs"),
			text("nonfinite", "refuse", "what NaN or infinity in a batch does: refuse, or skip the layers where it occurs"),
			seedFlag(), labelFlag(), limitFlag(),
		},
	})
}

func pruneCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name: "prune", Usage: "cut a model after a plan and repair it",
		Flags: []cli.Flag{
			need("plan", "plan `FILE` to follow"), need("output", "`FOLDER` of the light expert"),
			modelFlag(), weightsFlag(), dataFlag(), compensateFlag(), batchSizeFlag(), seedFlag(), labelFlag(), limitFlag(),
		},
	})
}

func predictCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name: "predict", Usage: "run the light and the heavy expert over the same images",
		Flags: []cli.Flag{
			need("light", "`FOLDER` of the light expert"), text("heavy", "example", "`MODEL`: as --model of calibrate"), weightsFlag(),
			text("data", "example:test", "`DATA` that has served neither expert"), place("output", "predictions.arrow", "predictions `FILE` to write"),
			batchSizeFlag(), seedFlag(), labelFlag(), limitFlag(),
		},
	})
}

// hostedCommand only reads flags: agflow.commands.<name> does the work.
func hostedCommand(c cli.Command) *cli.Command {
	c.Category = modelSteps
	return hosted(c, c.Name)
}

// hosted hands the flags of a command to a function of agflow.commands.
func hosted(c cli.Command, function string) *cli.Command {
	return command(c, func(ctx *cli.Context) (outcome, error) {
		options, err := pythonOptions(ctx)
		if err != nil {
			return outcome{}, err
		}
		answer, err := callPython(ctx, "agflow.commands", function, options)
		if err != nil {
			return outcome{}, err
		}
		var result struct {
			Summary string `json:"summary"`
		}
		if err := json.Unmarshal([]byte(answer), &result); err != nil {
			return outcome{}, pythonError(fmt.Errorf("agflow.commands.%s returned no JSON object: %w", function, err))
		}
		return outcome{json.RawMessage(answer), result.Summary}, nil
	})
}

// callPython runs one function of Python's and, with --debug, prints the traceback of its exception.
func callPython(c *cli.Context, module, function, argument string) (string, error) {
	answer, err := host(python(c), module, function, argument)
	var python *pyhost.Error
	if errors.As(err, &python) && asked(c, "debug") {
		fmt.Fprint(c.App.ErrWriter, python.Traceback)
	}
	return answer, err
}

func refuseTwoBudgets(c *cli.Context) error {
	if c.IsSet("macs") && c.IsSet("pruning-ratio") {
		return usageError("--macs and --pruning-ratio were both given: give one budget")
	}
	return nil
}
