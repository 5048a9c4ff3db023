package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func runCommand() *cli.Command {
	step := of("run")
	return hostedCommand(cli.Command{
		Name:  "run",
		Usage: "the whole pipeline: calibrate, plan, prune, repair, fine-tune, route, report",
		Description: "After a kill the same command goes on from the last finished step, " +
			"and ends with the same bytes but for measured times; of a finished run it shows " +
			"the outcome.",
		UsageText: "agflow run --model timm:deit_tiny_patch16_224 --data imagefolder:train " +
			"--eval imagefolder:val --macs 0.5",
		Flags: slices.Concat(inputs(
			modelFlag(), weightsFlag(), dataFlag(),
			testDataFlag("eval", "`DATA` with the test images, which are used for nothing else"),
		), formFlags(), budget(
			macsFlag(step, "`MACS` of the light expert: a share of the model's, or 350M, 1.2G"),
			pruningRatioFlag(), toleranceFlag(step), confidenceFlag(),
			atLeast(0, step.number("epochs", "fine-tune for `N` epochs")),
			limitFlag(), atLeast(1, optional("eval-limit", "all", "use at most `N` test images")),
		), method(
			criterionFlag("`NAME` of the criterion"),
			groupsFlag("`GROUPS` of units to measure and prune"), lossFlag(),
			compensateFlag(step), costsFlag(),
			learningRate(step.fraction("lr", "peak learning `RATE` of the fine-tuning")),
		), outputs(
			step.output("`FOLDER` of the results"), forceFlag(), checkFlag(),
		), computingFlags(), advanced(
			roundToFlag(), ignoredLayersFlag(), batchesFlag(), seedFlag(),
		)),
		Before: refuseTwoBudgets,
	})
}
