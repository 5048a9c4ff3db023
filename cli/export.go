package main

import (
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"
)

func exportCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:      "export",
		Usage:     "write a model for other runtimes, after comparing it with torch",
		UsageText: "agflow export --model light --output light.onnx",
		Flags: slices.Concat([]cli.Flag{
			need(checked(place("output", "`FILE` to write, .onnx or .pt2"), checkExported)),
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

// checkExported refuses a file whose ending says no format, where none is named.
func checkExported(c *cli.Context, _, path string) error {
	ending := filepath.Ext(path)
	if c.String("format") != "" || ending == ".onnx" || ending == ".pt2" {
		return nil
	}
	return usageError("--output is %s, whose ending says no format: end it in .onnx or .pt2, or "+
		"name the --format", path)
}
