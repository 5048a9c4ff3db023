package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func finetuneCommand() *cli.Command {
	step := of("finetune")
	return hostedCommand(cli.Command{
		Name:  "finetune",
		Usage: "train a light expert with the heavy one as its teacher",
		Flags: slices.Concat([]cli.Flag{
			need("light", "`FOLDER` of the light expert"),
			need("output", "`FOLDER` of the fine-tuned expert"),
			heavyFlag("`MODEL` to distil from: as --model of calibrate"), weightsFlag(), dataFlag(),
			step.number("epochs", "train for `N` epochs"),
			step.fraction("lr", "peak learning `RATE`"),
			step.fraction("distill", "`SHARE` of the teacher in the loss, beside the labels"),
			step.fraction("features",
				"`WEIGHT` of the squared error to the teacher's last token features"),
			step.number("accumulate", "accumulate the gradients of `N` batches in a step"),
			place("checkpoint", "save the run in `FILE`, and resume from it after a crash"),
			batchSizeFlag(), seedFlag(), limitFlag(),
		}, formFlags(), computingFlags()),
	})
}
