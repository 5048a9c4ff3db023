package main

import (
	"math"
	"strconv"
	"strings"

	"agflow/core/criteria"

	"github.com/urfave/cli/v2"
)

// The flags that several commands share.

func modelFlag() cli.Flag {
	return checked(common.text("model",
		"`MODEL`: example, timm:NAME, torchvision:NAME, module:function, the folder of an "+
			"expert or of a Hugging Face model, or, where no gradients are needed, FILE.onnx"),
		checkModel)
}

// heavyFlag names the heavy expert.
func heavyFlag(usage string) cli.Flag {
	return checked(&cli.StringFlag{
		Name: "heavy", Value: standard[string](common, "model"), Usage: usage,
		EnvVars: env("heavy"),
	}, checkModel)
}

func weightsFlag() cli.Flag {
	return checked(setting("weights", "safetensors `FILE` with the model's weights"),
		func(c *cli.Context, name, path string) error {
			for _, model := range []string{c.String("model"), c.String("heavy")} {
				if model == "example" {
					return usageError("--%s is %s, and the example brings its own: leave it out, "+
						"or name the model that they are of", name, path)
				}
			}
			return checkInput("--"+name, path)
		})
}

// channelNumbers are a number a channel, as many as those of another flag.
func channelNumbers(name, other, usage string) cli.Flag {
	flag := settings(name, usage)
	flag.Action = func(c *cli.Context, values []string) error {
		for _, value := range values {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil || math.IsInf(number, 0) || name == "std" && number <= 0 {
				return usageError("--%s has %q, expected numbers with commas between them, one a "+
					"channel, such as 0.5,0.5,0.5", name, value)
			}
		}
		if len(values) != len(c.StringSlice(other)) {
			return usageError("--%s has %d numbers and --%s %d: give one for each channel in both",
				name, len(values), other, len(c.StringSlice(other)))
		}
		return nil
	}
	return flag
}

// preprocessingFlags say what a model's images need, in place of what is known of the model.
func preprocessingFlags() []cli.Flag {
	return grouped(imageGroup, []cli.Flag{
		channelNumbers("mean", "std", "`NUMBERS` that the images' channels are normalised by: as "+
			"many as the model has channels (default: what is known of the model)"),
		channelNumbers("std", "mean", "`NUMBERS` beside those of --mean"),
		within(0, math.Inf(1), false, &cli.Float64Flag{
			Name: "crop", EnvVars: env("crop"), DefaultText: "the model's",
			Usage: "`SHARE` of the resized image's side that the model sees, such as 0.875",
		}),
		setting("crop-mode", "`MODE` of the crop: center; squash, which resizes both sides; or "+
			"border, which fills what is missing (default: the model's)"),
		setting("interpolation", "`NAME` of the resize's interpolation: bicubic, bilinear, "+
			"nearest, lanczos, box or hamming (default: the model's)"),
	})
}

func dataFlag() cli.Flag {
	return checked(common.text("data",
		"`DATA`: example:train, parquet:FILE, npz:FILE or imagefolder:DIR; FILE may be a folder "+
			"or a pattern of parquet files"), checkData)
}

// testDataFlag names data that train nothing.
func testDataFlag(name, usage string) cli.Flag {
	return checked(&cli.StringFlag{
		Name: name, Value: standard[string](common, "test-data"), Usage: usage, EnvVars: env(name),
	}, checkData)
}

func labelFlag() cli.Flag {
	return setting("label", "`COLUMN` of the labels in a parquet file")
}

func imageColumnFlag() cli.Flag {
	return setting("image-column",
		"`COLUMN` of the images in a parquet file (default: the one that holds images)")
}

func classMapFlag() cli.Flag {
	return inputFile(setting("class-map", "`FILE` with the class of the model for every class of "+
		"the data: a JSON object {name: number or name}, or CSV lines name,number (default: by "+
		"the names)"))
}

// formFlags say how data are to be read, up to the numbers that the model takes.
func formFlags() []cli.Flag {
	form := inputs(labelFlag(), imageColumnFlag(), classMapFlag())
	return append(form, preprocessingFlags()...)
}

// computingFlags say where and how exactly models compute, and who decodes their images.
func computingFlags() []cli.Flag {
	return grouped(computingGroup, []cli.Flag{
		aDevice(common.text("device", "torch `DEVICE` for the models: cpu, cuda or cuda:1")),
		common.text("dtype", "`DTYPE` of the models' products: float32, or bfloat16 beside "+
			"weights that stay float32"),
		batchSizeFlag(),
		atLeast(0, common.number("workers", "decode images in `N` processes beside this one")),
	})
}

func limitFlag() cli.Flag {
	return atLeast(1, optional("limit", "all", "read at most `N` images of the data"))
}

func offsetFlag() cli.Flag {
	return atLeast(0, optional("offset", "0", "skip the first `N` images of the data"))
}

func batchesFlag() cli.Flag {
	return atLeast(1, of("calibrate").number("batches", "calibrate on `N` batches"))
}

func batchSizeFlag() cli.Flag {
	return atLeast(1, common.number("batch-size", "`N` images a batch"))
}

func seedFlag() cli.Flag {
	return atLeast(0, common.number("seed", "`SEED` of every random choice"))
}

// seed reads the seed of a step on files.
func seed(c *cli.Context) (uint64, error) {
	if c.Int("seed") < 0 {
		return 0, usageError("--seed is %d: seeds are whole numbers from 0", c.Int("seed"))
	}
	return uint64(c.Int("seed")), nil
}

// groupsFlag selects the groups that a model is measured by, and so what can be pruned.
func groupsFlag(usage string) cli.Flag {
	flag := of("calibrate").list("groups", usage+": "+strings.Join(groupKinds, ", "))
	flag.Action = func(_ *cli.Context, given []string) error {
		for _, word := range given {
			if err := oneOf("--groups", word, groupKinds); err != nil {
				return err
			}
		}
		return nil
	}
	return flag
}

const lossUsage = "`LOSS` whose gradients are measured: labels, self for labels drawn from the " +
	"model's own softened answers, or features for the final hidden state, which needs no " +
	"classifier"

func lossFlag() cli.Flag { return of("calibrate").text("loss", lossUsage) }

// chosenLossFlag is a loss that the images and the model decide where it is not given.
func chosenLossFlag() cli.Flag {
	flag := setting("loss", lossUsage)
	flag.DefaultText = "by what there is: labels, else self; features without a classifier"
	return flag
}

func compensateFlag(step of) cli.Flag {
	return step.text("compensate",
		"`METHOD` that repairs the pruned layers: ridge, ridge_at_once, mean or none")
}

func roundToFlag() cli.Flag {
	return atLeast(1, of("plan").number("round-to",
		"keep a multiple of `N` channels in each MLP, in the residual stream and inside each head"))
}

func ignoredLayersFlag() cli.Flag {
	return settings("ignored-layers", "`LAYERS` to leave unpruned: names or patterns")
}

func criterionFlag(usage string) cli.Flag {
	return of("score").text("criterion", usage+": "+strings.Join(criteria.Names(), ", "))
}

func toleranceFlag(step of) cli.Flag {
	return within(0, 1, true, step.fraction("tolerance",
		"`ACCURACY` that the cascade may lose against the heavy expert"))
}

func costsFlag() cli.Flag {
	return checked(of("predict").text("costs", "`COSTS` of an image: macs, or measured, in ms by "+
		"the first batch, so by --batch-size and the threads"),
		func(_ *cli.Context, name, word string) error {
			return oneOf("--"+name, word, []string{"macs", "measured"})
		})
}

func confidenceFlag() cli.Flag {
	return within(0, 1, false, of("route").fraction("confidence",
		"`PROBABILITY` with which the limit is guaranteed"))
}

func forceFlag() cli.Flag {
	return common.toggle("force",
		"repeat a run that is finished, and replace another run's files in the default output")
}

func ensembleFlag() cli.Flag {
	return of("route").toggle("ensemble",
		"average the log-probabilities of both experts on an image that escalates, "+
			"instead of taking the heavy expert's answer")
}
