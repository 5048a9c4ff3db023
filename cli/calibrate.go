package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func calibrateCommand() *cli.Command {
	step := of("calibrate")
	return hostedCommand(cli.Command{
		Name:  "calibrate",
		Usage: "measure the statistics of a model's units",
		UsageText: "agflow calibrate --model timm:deit_tiny_patch16_224 --data imagefolder:train " +
			"--output statistics.arrow",
		Flags: slices.Concat(inputs(
			modelFlag(), weightsFlag(), dataFlag(),
		), formFlags(), budget(
			batchesFlag(), limitFlag(), offsetFlag(),
		), method(
			groupsFlag("`GROUPS` of units to measure"),
			lossFlag(),
			atLeast(1, optional("image-size", "the model's",
				"measure the model at `N` x N pixels, to prune it at that size")),
			step.toggle("weight-gradients",
				"also sum weight times gradient, which the criterion taylor_weight needs"),
		), outputs(
			step.output("statistics `FILE` to write"),
			place("dump", "also write the raw tensors into `FOLDER`"),
		), computingFlags(), advanced(
			step.text("nonfinite", "`ACTION` on NaN or infinity in a batch: refuse the batch, "+
				"or skip the layers where it occurs"),
			seedFlag(),
		)),
	})
}
