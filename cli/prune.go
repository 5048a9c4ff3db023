package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func pruneCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:  "prune",
		Usage: "prune a model by a plan and repair it",
		UsageText: "agflow prune --model timm:deit_tiny_patch16_224 --data imagefolder:train " +
			"--plan plan.arrow --output light",
		Flags: slices.Concat([]cli.Flag{
			need(inputPlan(place("plan", "plan `FILE` to follow"))),
			need(place("output", "`FOLDER` of the light expert")),
		}, inputs(
			modelFlag(), weightsFlag(), dataFlag(),
		), formFlags(), budget(limitFlag(), offsetFlag()), method(
			compensateFlag("prune"),
		), computingFlags(), advanced(seedFlag())),
	})
}
