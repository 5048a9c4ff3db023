package main

import "github.com/urfave/cli/v2"

func designCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name: "design", Usage: "choose a light expert and its cascade by what they cost",
		Description: "The data trains. Of the images held out, which are half of the data unless others are given, a quarter chooses, a third calibrates the threshold, the rest judges.",
		Flags: []cli.Flag{
			need("output", "`FOLDER` of the cascade: light, heavy, router.json, predictions, frontier"),
			modelFlag(), weightsFlag(), dataFlag(), text("held-out", "", "`DATA` that trains nothing, by default half of the data"),
			numbers("classes", nil, "answer only these `CLASSES` of the model, and leave images of others out"),
			numbers("image-sizes", nil, "sides of the images that the light expert may look at, in `PIXELS`; by default the model's own and parts of it"),
			list("macs", []string{"1", "0.5"}, "widths to try: `SHARES` of the model's MACs at each image size"),
			list("groups", []string{"mlp", "heads"}, "`GROUPS` of units to cut; with block, whole branches go too"),
			numbers("shared-blocks", []int{0}, "`NUMBERS` of first blocks that both experts may share"),
			text("answers", "heavy", "`EXPERTS` that answer what escalates: heavy, or both"),
			text("cost", "macs", "`COST` to save: macs, or seconds as measured here"),
			number("epochs", 8, "", "distil the finalists for `N` epochs"), fraction("lr", 0.0001, "peak learning `RATE` of the distillation"),
			toleranceFlag(), confidenceFlag(), batchSizeFlag(), seedFlag(), labelFlag(), limitFlag(),
		},
	})
}
