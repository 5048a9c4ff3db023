package main

import (
	"agflow/bridge/tables"
	"agflow/core/planning"

	"github.com/urfave/cli/v2"
)

// planInput reads the files that a plan is made from.
func planInput(c *cli.Context) (from planning.Input, err error) {
	switch scores, table := c.String("scores"), c.String("statistics"); {
	case scores != "" && table != "":
		return from, usageError("--scores and --statistics were both given: give one of them")
	case scores != "":
		from, err = planInputOfScores(c, scores)
	case table != "":
		from, err = planInputOfStatistics(c, table)
	default:
		return from, usageError("--statistics or --scores is missing: see %s --help",
			c.Command.HelpName)
	}
	if path := c.String("latency"); err == nil && path != "" {
		var table planning.LatencyTable
		table, err = load(path, tables.KindLatency, tables.LatencyFromRecord)
		from.Latency = &table
	}
	return from, err
}

// planInputOfScores reads scores and, where --widths names a file, the scores that share widths.
func planInputOfScores(c *cli.Context, path string) (from planning.Input, err error) {
	from.Scores, err = load(path, tables.KindScores, tables.ScoresFromRecord)
	if err != nil {
		return from, err
	}
	if name := c.String("criterion"); c.IsSet("criterion") && name != from.Scores.Criterion {
		return from, usageError("%s holds scores by %s and --criterion is %s: score the "+
			"statistics by %[3]s first, or give --statistics instead of --scores",
			path, from.Scores.Criterion, name)
	}
	widths := c.String("widths")
	if widths == "" || widths == planning.Uniform {
		return from, nil
	}
	shared, err := load(widths, tables.KindScores, tables.ScoresFromRecord)
	from.Widths = &shared
	return from, err
}

// planInputOfStatistics scores statistics by --criterion, and by the criterion of --widths.
func planInputOfStatistics(c *cli.Context, path string) (from planning.Input, err error) {
	seed, err := seed(c)
	if err != nil {
		return from, err
	}
	table, err := load(path, tables.KindStatistics, tables.StatisticsFromRecord)
	if err != nil {
		return from, err
	}
	return planning.InputOf(table, c.String("criterion"), c.String("widths"), seed)
}
