package main

import (
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"
)

// quantizations are the ways to an int8 file, the first of which chooses among others.
var quantizations = []string{"int8", "int8-dynamic", "int8-static", "int8-weights"}

func exportCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:      "export",
		Usage:     "write a model or a cascade for other runtimes, after comparing it with torch",
		UsageText: "agflow export --model light --output light.onnx",
		Description: "With --quantize, images of --data that calibrate nothing show what int8 " +
			"loses. A cascade is exported by --cascade FOLDER --output FOLDER; with --quantize " +
			"its images must have labels and have tuned neither expert: a quarter, at most 640, " +
			"quantises, and the rest calibrates the threshold anew, for int8 experts are others.",
		Before: checkExport,
		Flags: slices.Concat([]cli.Flag{
			need(checked(place("output",
				"`FILE` to write, .onnx or .pt2; of a cascade a FOLDER"), checkExported)),
		}, inputs(
			modelFlag(), weightsFlag(),
			checked(setting("cascade", "`FOLDER` of a cascade to export, in place of a model"),
				func(_ *cli.Context, name, path string) error {
					return checkFolder("--"+name, path)
				}),
			checked(setting("data", "`DATA` whose first images it is compared on, or that "+
				"quantise (default: random images)"), checkData),
		), formFlags(), budget(limitFlag(), offsetFlag()), method(
			setting("format",
				"`NAME` of the format: onnx or torch (default: by the file's ending)"),
			atLeast(1, of("export").number("opset", "`VERSION` of the ONNX operators")),
			checked(setting("quantize", "compute in 8 bits: `METHOD` int8, which takes the "+
				"fastest that loses at most 0.5 points, int8-dynamic, int8-static or "+
				"int8-weights"),
				func(_ *cli.Context, name, word string) error {
					return oneOf("--"+name, word, quantizations)
				}),
			within(0, 1, true, &cli.Float64Flag{
				Name: "tolerance", EnvVars: env("tolerance"), DefaultText: "the cascade's",
				Usage: "`ACCURACY` that an int8 cascade may lose against its int8 heavy expert",
			}),
		), grouped(computingGroup, []cli.Flag{batchSizeFlag()}), advanced(seedFlag())),
	})
}

// checkExport refuses flags that do not go together.
func checkExport(c *cli.Context) error {
	cascade := c.String("cascade") != ""
	for _, name := range []string{"model", "weights", "mean", "std", "crop", "crop-mode",
		"interpolation"} {
		if cascade && c.IsSet(name) {
			return usageError("--%s was given with --cascade, whose folder says all of its "+
				"models: leave one of them out", name)
		}
	}
	if cascade && c.IsSet("opset") {
		return usageError("--opset is of a single model: leave it out with --cascade")
	}
	if c.IsSet("tolerance") && (!cascade || c.String("quantize") == "") {
		return usageError("--tolerance is of the threshold of an int8 cascade: give --cascade " +
			"and --quantize with it, or leave it out")
	}
	if cascade && c.String("quantize") != "" && c.String("data") == "" {
		return usageError("--quantize makes other experts than those that the cascade's " +
			"threshold was calibrated on: give --data with labelled images for a new one")
	}
	return nil
}

// checkExported refuses a file whose ending says no format, where none is named.
func checkExported(c *cli.Context, _, path string) error {
	ending := filepath.Ext(path)
	known := ending == ".onnx" || ending == ".pt2"
	switch {
	case c.String("cascade") != "" && known:
		return usageError("--output is %s, and a cascade becomes several files: name a folder",
			path)
	case c.String("cascade") != "" || c.String("format") != "" || known:
		return nil
	}
	return usageError("--output is %s, whose ending says no format: end it in .onnx or .pt2, or "+
		"name the --format", path)
}
