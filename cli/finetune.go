package main

import (
	"math"
	"slices"

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
		), formFlags(), budget(
			atLeast(1, step.number("epochs", "train for `N` epochs")), limitFlag(),
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
