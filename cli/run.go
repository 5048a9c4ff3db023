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
		Flags: slices.Concat([]cli.Flag{
			modelFlag(), weightsFlag(), dataFlag(),
			testDataFlag("eval", "`DATA` with the test images, which are used for nothing else"),
			step.output("`FOLDER` of the results"),
			macsFlag(step, "`MACS` of the light expert: a share of the model's, or 350M, 1.2G"),
			pruningRatioFlag(), criterionFlag("`NAME` of the criterion"), roundToFlag(),
			groupsFlag("`GROUPS` of units to measure and prune"), ignoredLayersFlag(),
			compensateFlag(step), batchesFlag(), batchSizeFlag(),
			step.number("epochs", "fine-tune for `N` epochs"),
			step.fraction("lr", "peak learning `RATE` of the fine-tuning"),
			limitFlag(), optional("eval-limit", "all", "use at most `N` test images"),
			toleranceFlag(), confidenceFlag(), checkFlag(), seedFlag(),
		}, formFlags(), computingFlags()),
		Before: refuseTwoBudgets,
	})
}
