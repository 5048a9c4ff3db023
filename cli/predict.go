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
		UsageText: "agflow predict --light tuned --heavy timm:deit_tiny_patch16_224 " +
			"--data imagefolder:held-out",
		Flags: slices.Concat([]cli.Flag{
			need(inputExpert(place("light",
				"`FOLDER` of the light expert, or its exported FILE.onnx"))),
		}, inputs(
			heavyFlag("`MODEL`: as --model of calibrate"), weightsFlag(),
			testDataFlag("data", "`DATA` that trained neither expert"),
		), formFlags(), budget(limitFlag(), offsetFlag()), method(
			step.toggle("features",
				"also record the L1 norm of the light expert's last features, as a prior"),
			step.toggle("second-view", "also record how far the light expert agrees with its "+
				"answer for the mirrored image (test-time augmentation), as the prior agreement"),
			costsFlag(),
		), outputs(
			step.output("predictions `FILE` to write"),
		), computingFlags(), advanced(seedFlag())),
	})
}
