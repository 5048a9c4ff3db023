package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"agflow/bridge/arrowfile"
	"agflow/core/criteria"
	"agflow/core/planning"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/urfave/cli/v2"
)

func scoreCommand() *cli.Command {
	return command(cli.Command{
		Name: "score", Usage: "score the units of a statistics file by a criterion", Category: fileSteps,
		Flags: []cli.Flag{
			need("statistics", "statistics `FILE` to score"), place("output", "scores.arrow", "scores `FILE` to write"), criterionFlag(), seedFlag(),
		},
	}, func(c *cli.Context) (outcome, error) {
		seed, err := seed(c)
		if err != nil {
			return outcome{}, err
		}
		table, err := load(c.String("statistics"), arrowfile.KindStatistics, arrowfile.StatisticsFromRecord)
		if err != nil {
			return outcome{}, err
		}
		scores, err := criteria.Score(c.String("criterion"), seed, table)
		if err != nil {
			return outcome{}, err
		}
		path := c.String("output")
		if err := save(path, arrowfile.ScoresToRecord(memory.DefaultAllocator, scores)); err != nil {
			return outcome{}, err
		}
		return outcome{
			map[string]any{"output": path, "criterion": scores.Criterion, "seed": scores.Seed, "units": len(scores.Score)},
			fmt.Sprintf("%s: %d units of %s by %s", path, len(scores.Score), scores.Model.Name, scores.Criterion),
		}, nil
	})
}

func planCommand() *cli.Command {
	return command(cli.Command{
		Name: "plan", Usage: "choose which units stay under a budget", Category: fileSteps, Before: refuseTwoBudgets,
		Flags: []cli.Flag{
			need("scores", "scores `FILE` to rank by"), place("output", "plan.arrow", "plan `FILE` to write"),
			place("macs", "", "`MACS` to come down to: a share of the model's (0.35), or 350M, 1.2G"),
			place("params", "", "`PARAMETERS` to come down to: a share of the model's (0.5), or 2.5M"),
			&cli.Float64Flag{Name: "latency-ms", DefaultText: "by --macs", Usage: "`MILLISECONDS` that a batch may take, by the table of --latency"},
			ratioFlag(), place("latency", "", "latency `FILE` of this model, made by agflow bench layers"),
			place("widths", "", "scores `FILE` that shares the units out among layers, say by variance_weighted (default: evenly)"),
			toggle("joint", "one order over all groups, by worth for cost"),
			fraction("floor", 0, "least `SHARE` of each layer's units that stays; whole branches may go"),
			roundToFlag(), list("groups", nil, "`GROUPS` to prune (default: all)"),
			ignoredLayersFlag(),
		},
	}, func(c *cli.Context) (outcome, error) {
		if len(budgets(c)) == 0 {
			return outcome{}, usageError("a budget is missing: give --macs (such as 0.35), --params, --latency-ms or --pruning-ratio (such as 0.5)")
		}
		from, err := planInput(c)
		if err != nil {
			return outcome{}, err
		}
		plan, report, err := planning.Solve(from, planning.Request{
			PruningRatio: c.Float64("pruning-ratio"), MACs: c.String("macs"), Params: c.String("params"), LatencyMS: c.Float64("latency-ms"),
			Joint: c.Bool("joint"), Floor: c.Float64("floor"), RoundTo: c.Int("round-to"),
			Groups: c.StringSlice("groups"), IgnoredLayers: c.StringSlice("ignored-layers"),
		})
		if err != nil {
			return outcome{}, err
		}
		rec, err := arrowfile.PlanToRecord(memory.DefaultAllocator, plan)
		if err != nil {
			return outcome{}, err
		}
		path := c.String("output")
		if err := save(path, rec); err != nil {
			return outcome{}, err
		}
		return outcome{map[string]any{"output": path, "report": report}, planText(path, report)}, nil
	})
}

// planInput reads the files that a plan is made from: the scores, and others where they are named.
func planInput(c *cli.Context) (from planning.Input, err error) {
	if from.Scores, err = load(c.String("scores"), arrowfile.KindScores, arrowfile.ScoresFromRecord); err != nil {
		return from, err
	}
	if path := c.String("widths"); path != "" {
		widths, err := load(path, arrowfile.KindScores, arrowfile.ScoresFromRecord)
		if err != nil {
			return from, err
		}
		from.Widths = &widths
	}
	if path := c.String("latency"); path != "" {
		table, err := load(path, arrowfile.KindLatency, arrowfile.LatencyFromRecord)
		if err != nil {
			return from, err
		}
		from.Latency = &table
	}
	return from, nil
}

func planText(path string, r planning.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d MACs (%.3fx), %d of %d parameters", path, r.MACs, r.DenseMACs, r.MACsRatio, r.Params, r.DenseParams)
	if r.DenseLatencyMS > 0 {
		fmt.Fprintf(&b, ", %.2f of %.2f ms", r.LatencyMS, r.DenseLatencyMS)
	}
	fmt.Fprintf(&b, ", %+.2f %% off the budget, %.1f %% of the utility kept\n", 100*r.Miss, 100*r.KeptUtility)
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "layer\tgroup\tunits\tkept")
	for _, l := range r.Layers {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\n", l.Layer, l.Group, l.Units, l.Kept)
	}
	table.Flush()
	return b.String()
}
