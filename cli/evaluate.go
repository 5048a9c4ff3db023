package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func evaluateCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:      "evaluate",
		Usage:     "measure the accuracy of a model, or how far it agrees with another",
		UsageText: "agflow evaluate --model light --data imagefolder:val",
		Flags: slices.Concat(inputs(
			modelFlag(), weightsFlag(), denseFlag(),
			testDataFlag("data", "`DATA` with the test images"),
		), formFlags(), budget(limitFlag(), offsetFlag()), computingFlags(), advanced(seedFlag())),
	})
}

// denseFlag names the model that a pruned one is compared with.
func denseFlag() cli.Flag {
	return checked(setting("dense", "`MODEL` that it was pruned from: also compare answers, "+
		"features and their nearest neighbours; needs no classifier"), checkModel)
}
