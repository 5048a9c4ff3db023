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
			&cli.StringFlag{Name: "macs", DefaultText: "0.2", Usage: "`MACS` of the light expert: a share of the model's, or 350M, 1.2G"},
			ratioFlag(), criterionFlag(), roundToFlag(), groupsFlag(), ignoredLayersFlag(), compensateFlag("ridge_at_once"), batchesFlag(), batchSizeFlag(),
			number("epochs", 24, "", "fine-tune for `N` epochs"), fraction("lr", 0.001, "peak learning `RATE` of the fine-tuning"), limitFlag(), number("eval-limit", 0, "all", "judge on at most `N` images"),
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
			number("image-size", 0, "the model's", "measure the model at `N` x N pixels, to be cut at that size"),
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
			modelFlag(), weightsFlag(), dataFlag(), compensateFlag("ridge"), batchSizeFlag(), seedFlag(), labelFlag(), limitFlag(),
		},
	})
}

func predictCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name: "predict", Usage: "run the light and the heavy expert over the same images",
		Flags: []cli.Flag{
			need("light", "`FOLDER` of the light expert"), text("heavy", "example", "`MODEL`: as --model of calibrate"), weightsFlag(),
			text("data", "example:test", "`DATA` that has served neither expert"), place("output", "predictions.arrow", "predictions `FILE` to write"),
			toggle("features", "also record the l1 norm of the light expert's last features, as a prior"),
			toggle("second-look", "also record how far the light expert agrees with its look at the mirrored image, as the prior agreement"),
			batchSizeFlag(), seedFlag(), labelFlag(), limitFlag(),
		},
	})
}

func finetuneCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name: "finetune", Usage: "train a light expert with the heavy one as its teacher",
		Flags: []cli.Flag{
			need("light", "`FOLDER` of the light expert"), need("output", "`FOLDER` of the tuned expert"),
			text("heavy", "example", "`MODEL` that teaches: as --model of calibrate"), weightsFlag(), dataFlag(),
			number("epochs", 3, "", "go through the data `N` times"), fraction("lr", 0.0003, "peak learning `RATE`"),
			fraction("distill", 0.9, "`SHARE` of the teacher in the loss, beside the labels"),
			fraction("features", 0, "`WEIGHT` of the squared error to the teacher's last token features"),
			number("accumulate", 1, "", "make one step of `N` batches"),
			place("checkpoint", "", "keep the run in `FILE`, and go on from there after a crash"),
			batchSizeFlag(), seedFlag(), labelFlag(), limitFlag(),
		},
	})
}

func evaluateCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name: "evaluate", Usage: "measure the accuracy of a model",
		Flags: []cli.Flag{
			modelFlag(), weightsFlag(), text("data", "example:test", "`DATA` that judges"), batchSizeFlag(), seedFlag(), labelFlag(), limitFlag(),
		},
	})
}

func exportCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name: "export", Usage: "write a model for other runtimes, compared with torch first",
		Flags: []cli.Flag{
			need("output", "`FILE` to write, .onnx or .pt2"), text("format", "", "`NAME` of the format: onnx or torch, by default after the ending of the file"),
			modelFlag(), weightsFlag(), text("data", "", "`DATA` whose first images it is compared on, by default random ones"),
			number("opset", 18, "", "`VERSION` of ONNX's operators"), seedFlag(), labelFlag(),
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
	if given := budgets(c); len(given) > 1 {
		return usageError("--%s and --%s were both given: give one budget", given[0], given[1])
	}
	return nil
}

// budgets names the flags of budgets that were given.
func budgets(c *cli.Context) (given []string) {
	for _, name := range []string{"macs", "params", "latency-ms", "pruning-ratio"} {
		if c.IsSet(name) {
			given = append(given, name)
		}
	}
	return given
}
