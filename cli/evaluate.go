package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func evaluateCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:      "evaluate",
		Usage:     "measure the accuracy of a model",
		UsageText: "agflow evaluate --model light --data imagefolder:val",
		Flags: slices.Concat(inputs(
			modelFlag(), weightsFlag(), testDataFlag("data", "`DATA` with the test images"),
		), formFlags(), budget(limitFlag(), offsetFlag()), computingFlags(), advanced(seedFlag())),
	})
}
