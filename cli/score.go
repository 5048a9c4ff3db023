package main

import (
	"fmt"
	"slices"

	"agflow/bridge/tables"
	"agflow/core/criteria"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/urfave/cli/v2"
)

func scoreCommand() *cli.Command {
	return command(cli.Command{
		Name: "score", Usage: "score the units of a statistics file by a criterion",
		Category:  fileSteps,
		UsageText: "agflow score --statistics statistics.arrow --criterion wanda",
		Flags: slices.Concat([]cli.Flag{
			need(place("statistics", "statistics `FILE` to score")),
		}, method(
			criterionFlag("`NAME` of the criterion"),
		), outputs(
			of("score").output("scores `FILE` to write"),
		), advanced(seedFlag())),
	}, func(c *cli.Context) (outcome, error) {
		seed, err := seed(c)
		if err != nil {
			return outcome{}, err
		}
		table, err := load(c.String("statistics"),
			tables.KindStatistics, tables.StatisticsFromRecord)
		if err != nil {
			return outcome{}, err
		}
		scores, err := criteria.Score(c.String("criterion"), seed, table)
		if err != nil {
			return outcome{}, err
		}
		path := c.String("output")
		rec := tables.ScoresToRecord(memory.DefaultAllocator, scores)
		if err := saveOutput(c, rec); err != nil {
			return outcome{}, err
		}
		units := len(scores.Score)
		return outcome{
			map[string]any{
				"output": path, "criterion": scores.Criterion, "seed": scores.Seed, "units": units,
			},
			fmt.Sprintf("%s: %d units of %s by %s",
				path, units, scores.Model.Name, scores.Criterion),
		}, nil
	})
}
