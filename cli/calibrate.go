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
		Flags: slices.Concat([]cli.Flag{
			modelFlag(), weightsFlag(), dataFlag(), batchesFlag(), batchSizeFlag(),
			groupsFlag("`GROUPS` of units to measure"),
			place("dump", "also write the raw tensors into `FOLDER`"),
			step.output("statistics `FILE` to write"),
			optional("image-size", "the model's",
				"measure the model at `N` x N pixels, to prune it at that size"),
			step.toggle("weight-gradients",
				"also sum weight times gradient, which the criterion taylor_weight needs"),
			step.text("nonfinite", "`ACTION` on NaN or infinity in a batch: refuse the batch, "+
				"or skip the layers where it occurs"),
			seedFlag(), limitFlag(),
		}, formFlags(), computingFlags()),
	})
}
