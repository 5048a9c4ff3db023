package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func exportCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:      "export",
		Usage:     "write a model for other runtimes, after comparing it with torch",
		UsageText: "agflow export --model light --output light.onnx",
		Flags: slices.Concat([]cli.Flag{
			need(place("output", "`FILE` to write, .onnx or .pt2")),
		}, inputs(
			modelFlag(), weightsFlag(),
			checked(setting("data",
				"`DATA` whose first images it is compared on (default: random images)"), checkData),
			labelFlag(), imageColumnFlag(),
		), preprocessingFlags(), method(
			setting("format",
				"`NAME` of the format: onnx or torch (default: by the file's ending)"),
			atLeast(1, of("export").number("opset", "`VERSION` of the ONNX operators")),
		), advanced(seedFlag())),
	})
}
