package main

import (
	"slices"

	"github.com/urfave/cli/v2"
)

const benchmarks = "core, calibration, layers, pruning, cascade, bottleneck and coverage"

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:     "bench",
		Usage:    "measure agflow and its peers on this machine, in one interleaved run",
		Category: "Benchmarks (hosted Python)", HideHelp: true,
		Action: refuseBench,
		Subcommands: []*cli.Command{
			benchCoreCommand(), benchCalibrationCommand(), benchLayersCommand(),
			benchPruningCommand(), benchCascadeCommand(), benchBottleneckCommand(),
			benchCoverageCommand(),
		},
	}
}

// refuseBench is reached when no benchmark, or an unknown one, is named.
func refuseBench(c *cli.Context) error {
	if !c.Args().Present() {
		return usageError("agflow bench needs the name of a benchmark: %s", benchmarks)
	}
	return unknownCommand(c.Command.Subcommands, "benchmark", c.Args().First(),
		"agflow bench --help")
}

func roundsFlag(step of) cli.Flag {
	return atLeast(1, step.number("rounds", "interleaved `ROUNDS`"))
}

func benchCoreCommand() *cli.Command {
	step := of("bench_core")
	return hosted(cli.Command{
		Name:      "core",
		UsageText: "agflow bench core --threads 1,2",
		Usage:     "the statistics pass, top-k and a call across the bridge",
		Flags: []cli.Flag{
			roundsFlag(step),
			atLeast(1,
				step.numbers("threads", "measure with `THREADS`, one number after the other")),
		},
	}, string(step))
}

func benchCalibrationCommand() *cli.Command {
	step := of("bench_calibration")
	return hosted(cli.Command{
		Name:      "calibration",
		UsageText: "agflow bench calibration --rounds 3",
		Usage: "a calibration over the bare forward and backward pass, " +
			"in CPU time and memory",
		Flags: []cli.Flag{
			randomModelFlag(step, ""),
			atLeast(1, step.number("batch-size", "`N` images a batch")),
			atLeast(1, step.number("batches", "`N` batches of the whole calibration")),
			roundsFlag(step),
		},
	}, string(step))
}

// randomModelFlag names a model whose weights do not matter.
func randomModelFlag(step of, role string) cli.Flag {
	return step.text("model",
		"`NAME` of a timm Vision Transformer"+role+"; its weights are random")
}

func benchLayersCommand() *cli.Command {
	step := of("bench_layers")
	return hosted(cli.Command{
		Name:      "layers",
		UsageText: "agflow bench layers --model example --output latency.arrow",
		Usage: "the time of a model's products at all sizes that pruning may leave: " +
			"the table that agflow plan --latency reads",
		Flags: slices.Concat([]cli.Flag{
			modelFlag(), weightsFlag(), atLeast(1, step.number("batch", "`N` images a batch")),
			aDevice(step.text("device", "torch `DEVICE` to measure: cpu or cuda")),
			step.output("latency `FILE` to write"), roundsFlag(step),
		}, preprocessingFlags()),
	}, string(step))
}

func benchPruningCommand() *cli.Command {
	step := of("bench_pruning")
	return hosted(cli.Command{
		Name:      "pruning",
		UsageText: "agflow bench pruning --macs 0.5",
		Usage: "the whole prune step beside torch-pruning's: accuracy, time, memory and speed " +
			"at equal MACs",
		Flags: []cli.Flag{
			modelFlag(), weightsFlag(), dataFlag(),
			testDataFlag("eval", "`DATA` with the test images, which are used for nothing else"),
			macsFlag(step, "`MACS` of the pruned models: a share of the model's, or 350M, 1.2G"),
			pruningRatioFlag(),
			atLeast(1, step.number("calibration", "calibrate and repair on `N` images")),
			atLeast(1, step.number("tune", "fine-tune on `N` other images")),
			atLeast(1, step.number("eval-limit", "use at most `N` test images")),
			atLeast(0, step.number("epochs", "fine-tune for `N` epochs")),
			learningRate(step.fraction("lr", "peak learning `RATE` of the fine-tuning")),
			roundToFlag(),
			settings("contenders",
				"`NAMES` of the pruning methods, as in the report (default: all)"),
			roundsFlag(step), seedFlag(), labelFlag(),
		},
		Before: refuseTwoBudgets,
	}, string(step))
}

func benchCascadeCommand() *cli.Command {
	step := of("bench_cascade")
	return hosted(cli.Command{
		Name:      "cascade",
		UsageText: "agflow bench cascade --escalation 0.3",
		Usage: "the overhead of a cascade over its two bare passes, and the images a second of " +
			"heavy, light, cascade and server",
		Flags: []cli.Flag{
			randomModelFlag(step, ", the heavy expert"),
			atLeast(1,
				step.number("image-size", "the light expert is the same model at `N` pixels")),
			within(0, 1, true, step.fraction("escalation", "`SHARE` of the images that escalate")),
			atLeast(1, step.numbers("batch-sizes", "`N` images a batch, one size after the other")),
			atLeast(1, step.number("images", "`N` images a round")), roundsFlag(step),
		},
	}, string(step))
}

func benchBottleneckCommand() *cli.Command {
	step := of("bench_bottleneck")
	return hosted(cli.Command{
		Name:      "bottleneck",
		UsageText: "agflow bench bottleneck --rounds 1",
		Usage: "the dynamic range of the AGF signal during training, and AGF beside the priors " +
			"that cost nothing",
		Flags: []cli.Flag{
			modelFlag(), weightsFlag(), dataFlag(),
			testDataFlag("eval", "`DATA` that trains nothing: the signal of its images, and how "+
				"well the priors separate errors"),
			step.text("macs", "`MACS` of the light expert: a share of the model's, or 350M, 1.2G"),
			atLeast(1, step.number("calibration",
				"measure units and repair the pruned model on `N` images")),
			atLeast(1, step.number("tune", "train on `N` other images")),
			atLeast(1, step.number("eval-limit", "use at most `N` images of --eval")),
			atLeast(0, step.number("epochs", "fine-tune the light expert for `N` epochs")),
			step.number("scratch-epochs", "with --model example, also train its architecture "+
				"from random weights for `N` epochs"),
			learningRate(step.fraction("lr", "peak learning `RATE` of the fine-tuning")),
			roundsFlag(step), seedFlag(), labelFlag(),
		},
	}, string(step))
}

func benchCoverageCommand() *cli.Command {
	step := of("bench_coverage")
	return hosted(cli.Command{
		Name:      "coverage",
		UsageText: "agflow bench coverage --library torchvision --output which_models/",
		Usage: "which models agflow prunes: each of several libraries' with random weights, in a " +
			"process of its own",
		Flags: []cli.Flag{
			settings("library", "`LISTS` of models: torchvision, timm (the smallest of each "+
				"module), transformers (small ones) and thirty (widely used ones) (default: all)"),
			settings("models", "`MODELS` by name, as timm:NAME, torchvision:NAME, "+
				"transformers:CLASS or module:function, beside or in place of lists"),
			atLeast(1, step.number("seconds", "CPU `SECONDS` that one model may take")),
			atLeast(1, step.number("memory", "`GIB` of memory that one model may take")),
			step.toggle("peer", "also try each model with torch-pruning"),
			place("results", "`FILE` of JSON lines, one a model, that a later run goes on with "+
				"(default: coverage.jsonl in --output)"),
			step.output("`FOLDER` of the page, README.md, and the table, coverage.csv, which are " +
				"there from the start and rewritten after each model"),
		},
	}, string(step))
}
