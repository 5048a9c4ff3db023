package main

import "github.com/urfave/cli/v2"

func benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure agflow and its peers on this machine, in one interleaved run", Category: modelSteps,
		HideHelpCommand: true, OnUsageError: refuseFlag, Action: refuseBench,
		Subcommands: []*cli.Command{benchCoreCommand(), benchCalibrationCommand(), benchLayersCommand(), benchPruningCommand(), benchCascadeCommand()},
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

func roundsFlag(n int) cli.Flag { return number("rounds", n, "", "interleaved `ROUNDS`") }

// refuseBench is reached when no benchmark, or an unknown one, is named.
func refuseBench(c *cli.Context) error {
	if !c.Args().Present() {
		return usageError("agflow bench needs the name of a benchmark: core, calibration, layers, pruning or cascade")
	}
	return usageError("there is no benchmark %q: the benchmarks are core, calibration, layers, pruning and cascade", c.Args().First())
}
