package main

import "github.com/urfave/cli/v2"

func benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure agflow and its peers on this machine, in one interleaved run", Category: modelSteps,
		HideHelpCommand: true, OnUsageError: refuseFlag, Action: refuseBench,
		Subcommands: []*cli.Command{benchCoreCommand(), benchCalibrationCommand(), benchLayersCommand(), benchPruningCommand(), benchCascadeCommand(), benchBottleneckCommand()},
	}
}

func benchCoreCommand() *cli.Command {
	return hosted(cli.Command{
		Name: "core", Usage: "the statistics pass, top-k and a call across the bridge",
		Flags: []cli.Flag{roundsFlag(9), numbers("threads", []int{1, 2}, "measure with so many `THREADS`, one count after the other")},
	}, "bench_core")
}

func benchCalibrationCommand() *cli.Command {
	return hosted(cli.Command{
		Name: "calibration", Usage: "a calibration over the bare forward and backward pass, in CPU time and memory",
		Flags: []cli.Flag{
			text("model", "deit_tiny_patch16_224", "`NAME` of a timm Vision Transformer; its weights are random"),
			number("batch-size", 16, "", "`N` images a batch"), number("batches", 10, "", "batches of the whole calibration"), roundsFlag(5),
		},
	}, "bench_calibration")
}

func benchLayersCommand() *cli.Command {
	return hosted(cli.Command{
		Name: "layers", Usage: "the time of a model's products at all sizes a cut may leave them: the table that agflow plan --latency reads",
		Flags: []cli.Flag{
			modelFlag(), weightsFlag(), number("batch", 32, "", "`N` images a batch"), text("device", "cpu", "`DEVICE` of torch to measure: cpu or cuda"),
			place("output", "latency.arrow", "latency `FILE` to write"), roundsFlag(5),
		},
	}, "bench_layers")
}

func benchPruningCommand() *cli.Command {
	return hosted(cli.Command{
		Name: "pruning", Usage: "the whole prune step beside torch-pruning's: accuracy, time, memory and speed at equal MACs",
		Flags: []cli.Flag{
			modelFlag(), weightsFlag(), dataFlag(), text("eval", "example:test", "`DATA` that judges, and serves nothing else"),
			&cli.StringFlag{Name: "macs", DefaultText: "0.6", Usage: "`MACS` of the cut models: a share of the model's, or 350M, 1.2G"}, ratioFlag(),
			number("calibration", 256, "", "calibrate and repair on `N` images"), number("tune", 1500, "", "fine-tune on `N` other images"),
			number("eval-limit", 1000, "", "judge on at most `N` images"), number("epochs", 1, "", "fine-tune for `N` epochs"),
			fraction("lr", 0.0003, "peak learning `RATE` of the fine-tuning"), roundToFlag(),
			list("contenders", nil, "`NAMES` of the ways to prune, as the report has them"), roundsFlag(5), seedFlag(), labelFlag(),
		},
		Before: refuseTwoBudgets,
	}, "bench_pruning")
}

func benchCascadeCommand() *cli.Command {
	return hosted(cli.Command{
		Name: "cascade", Usage: "what a cascade adds to the two bare passes, and the images a second of heavy, light, cascade and server",
		Flags: []cli.Flag{
			text("model", "deit_tiny_patch16_224", "`NAME` of a timm Vision Transformer, the heavy expert; its weights are random"),
			number("image-size", 112, "", "the light expert is the same at `N` pixels"), fraction("escalation", 0.2, "`SHARE` of the images that escalate"),
			numbers("batch-sizes", []int{1, 32}, "images a batch: `N`, one size after the other"), number("images", 64, "", "`N` images a round"), roundsFlag(7),
		},
	}, "bench_cascade")
}

func benchBottleneckCommand() *cli.Command {
	return hosted(cli.Command{
		Name: "bottleneck", Usage: "the dynamic range of the AGF signal along a training, and AGF beside the priors that cost nothing",
		Flags: []cli.Flag{
			modelFlag(), weightsFlag(), dataFlag(), text("eval", "example:test", "`DATA` that trains nothing: the signal of images, and how well priors tell errors"),
			text("macs", "0.35", "`MACS` of the light expert: a share of the model's, or 350M, 1.2G"),
			number("calibration", 256, "", "measure units and repair the cut on `N` images"), number("tune", 2400, "", "train on `N` other images"),
			number("eval-limit", 1000, "", "take at most `N` images of the latter data"), number("epochs", 3, "", "fine-tune the light expert for `N` epochs"),
			number("scratch-epochs", 8, "", "train the example's architecture from random weights for `N` epochs, with --model example alone"),
			fraction("lr", 0.0003, "peak learning `RATE` of the fine-tuning"), roundsFlag(5), seedFlag(), labelFlag(),
		},
	}, "bench_bottleneck")
}

func roundsFlag(n int) cli.Flag { return number("rounds", n, "", "interleaved `ROUNDS`") }

// refuseBench is reached when no benchmark, or an unknown one, is named.
func refuseBench(c *cli.Context) error {
	if !c.Args().Present() {
		return usageError("agflow bench needs the name of a benchmark: core, calibration, layers, pruning, cascade or bottleneck")
	}
	return usageError("there is no benchmark %q: the benchmarks are core, calibration, layers, pruning, cascade and bottleneck", c.Args().First())
}
