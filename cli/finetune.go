package main

import (
	"math"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"
)

func finetuneCommand() *cli.Command {
	step := of("finetune")
	return hostedCommand(cli.Command{
		Name:  "finetune",
		Usage: "train a light expert with the heavy one as its teacher",
		UsageText: "agflow finetune --light light --heavy timm:deit_tiny_patch16_224 " +
			"--data imagefolder:train --output tuned",
		Flags: slices.Concat([]cli.Flag{
			need(inputExpert(place("light", "`FOLDER` of the light expert"))),
			need(place("output", "`FOLDER` of the fine-tuned expert")),
		}, inputs(
			heavyFlag("`MODEL` to distil from: as --model of calibrate"), weightsFlag(), dataFlag(),
			checked(step.text("held-out", "`SHARE` of the data, or other data, that chooses the "+
				"best epoch and trains nothing; 0 keeps the last epoch"), checkHeldOut),
		), formFlags(), budget(
			atLeast(1, step.number("epochs", "train for `N` epochs")), limitFlag(), offsetFlag(),
		), method(
			learningRate(step.fraction("lr", "peak learning `RATE`")),
			within(0, 1, true,
				step.fraction("distill", "`SHARE` of the teacher in the loss, beside the labels")),
			within(0, math.Inf(1), true, step.fraction("features",
				"`WEIGHT` of the squared error to the teacher's last token features")),
			atLeast(1,
				step.number("accumulate", "accumulate the gradients of `N` batches in a step")),
		), outputs(
			place("checkpoint", "save the run in `FILE`, and resume from it after a crash"),
		), computingFlags(), advanced(seedFlag())),
	})
}

// checkHeldOut refuses what is neither a share of the data nor other data.
func checkHeldOut(c *cli.Context, name, text string) error {
	share, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil:
		return checkData(c, name, text)
	case share < 0 || share >= 1:
		return usageError("--%s is %s, expected a share of the data from 0 and below 1, or data",
			name, text)
	}
	return nil
}
