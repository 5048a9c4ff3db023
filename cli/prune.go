package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func pruneCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:  "prune",
		Usage: "prune a model by a plan and repair it",
		Flags: slices.Concat([]cli.Flag{
			need("plan", "plan `FILE` to follow"), need("output", "`FOLDER` of the light expert"),
			modelFlag(), weightsFlag(), dataFlag(), compensateFlag("prune"),
			batchSizeFlag(), seedFlag(), limitFlag(),
		}, formFlags(), computingFlags()),
	})
}
