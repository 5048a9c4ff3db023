package main

import (
	"agflow/bridge/tables"

	"github.com/urfave/cli/v2"
)

func mergeCommand() *cli.Command {
	return command(cli.Command{
		Name:     "merge",
		Usage:    "add the statistics of several runs of one model, in the order given",
		Category: fileSteps, ArgsUsage: "FILE...",
		UsageText: "agflow merge --output statistics.arrow monday.arrow tuesday.arrow",
		Flags:     []cli.Flag{need(place("output", "statistics `FILE` to write"))},
	}, func(c *cli.Context) (outcome, error) {
		merged, err := tables.MergeStatistics(c.Args().Slice())
		if err != nil {
			return outcome{}, err
		}
		return saveStatistics(c, merged)
	})
}
