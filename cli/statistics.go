package main

import (
	"agflow/bridge/tensorfolder"
	"runtime"

	"github.com/urfave/cli/v2"
)

func statisticsCommand() *cli.Command {
	return command(cli.Command{
		Name:      "statistics",
		Usage:     "make statistics from a folder of tensors that calibrate --dump wrote",
		Category:  fileSteps,
		UsageText: "agflow statistics --tensors tensors --output statistics.arrow",
		Flags: []cli.Flag{
			need(place("tensors", "`FOLDER` with batch-*.arrow and weights.arrow")),
			of("calibrate").output("statistics `FILE` to write"),
			&cli.IntFlag{
				Name: "workers", Value: runtime.NumCPU(), DefaultText: "all cores",
				EnvVars: env("workers"), Usage: "`N` goroutines; any number gives the same bits",
			},
		},
	}, func(c *cli.Context) (outcome, error) {
		table, err := tensorfolder.Statistics(c.String("tensors"), c.Int("workers"))
		if err != nil {
			return outcome{}, err
		}
		return saveStatistics(c, table)
	})
}
