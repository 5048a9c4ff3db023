package main

import "github.com/urfave/cli/v2"

func benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure agflow and its peers on this machine, in one interleaved run", Category: modelSteps,
		HideHelpCommand: true, OnUsageError: refuseFlag, Action: refuseBench,
		Subcommands: []*cli.Command{benchCoreCommand(), benchCalibrationCommand()},
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

func roundsFlag(n int) cli.Flag { return number("rounds", n, "", "interleaved `ROUNDS`") }

// refuseBench is reached when no benchmark, or an unknown one, is named.
func refuseBench(c *cli.Context) error {
	if !c.Args().Present() {
		return usageError("agflow bench needs the name of a benchmark: core or calibration")
	}
	return usageError("there is no benchmark %q: the benchmarks are core and calibration", c.Args().First())
}
