package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func shrinkCommand() *cli.Command {
	step := of("shrink")
	return hostedCommand(cli.Command{
		Name:  "shrink",
		Usage: "make a light expert in one step: calibrate, plan, prune and repair",
		Description: "A part of the images is held out: it measures accuracy and speed before " +
			"and after, and calibrates nothing.",
		UsageText: "agflow shrink --model timm:deit_tiny_patch16_224 --data imagefolder:train " +
			"--macs 0.5 --output light",
		Before: needOneBudget,
		Flags: slices.Concat([]cli.Flag{
			need(place("output", "`FOLDER` of the light expert")),
		}, inputs(
			modelFlag(), weightsFlag(), dataFlag(),
		), formFlags(), budget(
			aBudget(place("macs", "largest `MACS`: a share of the model's (0.5), or 350M, 1.2G")),
			aBudget(place("params",
				"largest number of `PARAMETERS`: a share of the model's (0.5), or 2.5M")),
			pruningRatioFlag(), batchesFlag(), limitFlag(), offsetFlag(),
		), method(
			groupsFlag("`GROUPS` of units to prune"), chosenLossFlag(),
			criterionFlag("`NAME` of the criterion that ranks the units"),
			compensateFlag("prune"), roundToFlag(), ignoredLayersFlag(),
			within(0, 1, false, step.fraction("held-out",
				"`SHARE` of the images that measures the result")),
		), computingFlags(), advanced(seedFlag())),
	})
}
