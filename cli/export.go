package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

func exportCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:  "export",
		Usage: "write a model for other runtimes, after comparing it with torch",
		Flags: slices.Concat([]cli.Flag{
			need("output", "`FILE` to write, .onnx or .pt2"),
			setting("format",
				"`NAME` of the format: onnx or torch (default: by the file's ending)"),
			modelFlag(), weightsFlag(),
			setting("data",
				"`DATA` whose first images it is compared on (default: random images)"),
			of("export").number("opset", "`VERSION` of the ONNX operators"),
			seedFlag(), labelFlag(), imageColumnFlag(),
		}, normalisationFlags()),
	})
}
