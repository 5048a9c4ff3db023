package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func designCommand() *cli.Command {
	step := of("design")
	return hostedCommand(cli.Command{
		Name:  "design",
		Usage: "choose a light expert and its cascade by their cost",
		Description: "--data trains. Of the held-out images (half of the data, unless others " +
			"are given), 25 % choose the design, 35 % calibrate the threshold, and the rest are " +
			"test images.",
		Flags: slices.Concat([]cli.Flag{
			need("output",
				"`FOLDER` of the cascade: light, heavy, router.json, predictions, frontier"),
			modelFlag(), weightsFlag(), dataFlag(),
			setting("held-out", "`DATA` that trains nothing (default: half of the data)"),
			&cli.IntSliceFlag{
				Name: "classes", EnvVars: env("classes"),
				Usage: "answer only these `CLASSES` of the model and skip images of others",
			},
			&cli.IntSliceFlag{
				Name: "image-sizes", EnvVars: env("image-sizes"),
				Usage: "input resolutions to try for the light expert, as sides in `PIXELS` " +
					"(default: the model's own and parts of it)",
			},
			step.fractions("macs",
				"widths to try: `SHARES` of the model's MACs at each image size"),
			groupsFlag("`GROUPS` of units to prune; with block, whole branches are removed too"),
			step.numbers("shared-blocks", "`NUMBERS` of first blocks that both experts may share"),
			ensembleFlag(),
			step.text("cost", "`COST` to minimise: macs, or seconds as measured on this machine"),
			step.number("epochs", "distil the finalists for `N` epochs"),
			step.fraction("lr", "peak learning `RATE` of the distillation"),
			toleranceFlag(), confidenceFlag(), checkFlag(), batchSizeFlag(), seedFlag(),
			limitFlag(),
		}, formFlags(), computingFlags()),
	})
}
