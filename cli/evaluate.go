package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func evaluateCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:  "evaluate",
		Usage: "measure the accuracy of a model",
		Flags: slices.Concat([]cli.Flag{
			modelFlag(), weightsFlag(), testDataFlag("data", "`DATA` with the test images"),
			batchSizeFlag(), seedFlag(), limitFlag(),
		}, formFlags(), computingFlags()),
	})
}
