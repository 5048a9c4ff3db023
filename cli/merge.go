package main

import (
	"agflow/core/statistics"

	"github.com/urfave/cli/v2"
)

func mergeCommand() *cli.Command {
	return command(cli.Command{
		Name:     "merge",
		Usage:    "add the statistics of several runs of one model, in the order given",
		Category: fileSteps, ArgsUsage: "FILE...",
		Flags: []cli.Flag{need("output", "statistics `FILE` to write")},
	}, func(c *cli.Context) (outcome, error) {
		tables, err := loadStatistics(c.Args().Slice())
		if err != nil {
			return outcome{}, err
		}
		merged, err := statistics.Merge(tables...)
		if err != nil {
			return outcome{}, err
		}
		return saveStatistics(c.String("output"), merged)
	})
}
