package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func predictCommand() *cli.Command {
	step := of("predict")
	return hostedCommand(cli.Command{
		Name:  "predict",
		Usage: "run the light and the heavy expert over the same images",
		Flags: slices.Concat([]cli.Flag{
			need("light", "`FOLDER` of the light expert"),
			heavyFlag("`MODEL`: as --model of calibrate"), weightsFlag(),
			testDataFlag("data", "`DATA` that trained neither expert"),
			step.output("predictions `FILE` to write"),
			step.toggle("features",
				"also record the L1 norm of the light expert's last features, as a prior"),
			step.toggle("second-view", "also record how far the light expert agrees with its "+
				"answer for the mirrored image (test-time augmentation), as the prior agreement"),
			batchSizeFlag(), seedFlag(), limitFlag(),
		}, formFlags(), computingFlags()),
	})
}
