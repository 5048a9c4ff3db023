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
			"test images. After a kill the same command goes on, from OUTPUT.partial.",
		UsageText: "agflow design --model example --data example:train --output cascade",
		Flags: slices.Concat([]cli.Flag{
			need(place("output",
				"`FOLDER` of the cascade: light, heavy, router.json, predictions, frontier")),
			forceFlag(), checkFlag(),
		}, inputs(
			modelFlag(), weightsFlag(), dataFlag(),
			checked(setting("held-out", "`DATA` that trains nothing (default: half of the data)"),
				checkData),
			atLeast(0, &cli.IntSliceFlag{
				Name: "classes", EnvVars: env("classes"),
				Usage: "answer only these `CLASSES` of the model and skip images of others",
			}),
		), formFlags(), budget(
			shares(step.fractions("macs",
				"widths to try: `SHARES` of the model's MACs at each image size")),
			toleranceFlag(of("route")), confidenceFlag(),
			atLeast(0, step.number("epochs", "distil the finalists for `N` epochs")),
			limitFlag(),
		), method(
			atLeast(1, &cli.IntSliceFlag{
				Name: "image-sizes", EnvVars: env("image-sizes"),
				Usage: "input resolutions to try for the light expert, as sides in `PIXELS` " +
					"(default: the model's own and parts of it)",
			}),
			groupsFlag("`GROUPS` of units to prune; with block, whole branches are removed too"),
			atLeast(0, step.numbers("shared-blocks",
				"`NUMBERS` of first blocks that both experts may share")),
			ensembleFlag(),
			checked(step.text("cost",
				"`COST` to minimise: macs, or seconds as measured on this machine"),
				func(_ *cli.Context, name, word string) error {
					return oneOf("--"+name, word, []string{"macs", "seconds"})
				}),
			learningRate(step.fraction("lr", "peak learning `RATE` of the distillation")),
		), computingFlags(), advanced(seedFlag())),
	})
}
