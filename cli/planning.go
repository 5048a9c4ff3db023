package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"agflow/bridge/arrowfile"
	"agflow/core/criteria"
	"agflow/core/masking"

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
			place("macs", "", "`MACS` to come down to: a share of the model's (0.35), or 350M, 1.2G"), ratioFlag(),
			place("widths", "", "scores `FILE` that shares the units out among layers, say by variance_weighted (default: evenly)"),
			roundToFlag(), list("groups", nil, "`GROUPS` to prune (default: all)"),
			ignoredLayersFlag(),
		},
	}, func(c *cli.Context) (outcome, error) {
		if !c.IsSet("macs") && !c.IsSet("pruning-ratio") {
			return outcome{}, usageError("a budget is missing: give --macs (such as 0.35) or --pruning-ratio (such as 0.5)")
		}
		scores, err := load(c.String("scores"), arrowfile.KindScores, arrowfile.ScoresFromRecord)
		if err != nil {
			return outcome{}, err
		}
		plan, report, err := solve(scores, c.String("widths"), masking.Request{
			PruningRatio: c.Float64("pruning-ratio"), MACs: c.String("macs"), RoundTo: c.Int("round-to"),
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

// solve plans with the widths of a file of scores, or uniform ones without a file.
func solve(scores criteria.Scores, path string, request masking.Request) (masking.Plan, masking.Report, error) {
	if path == "" {
		return masking.Solve(scores, request)
	}
	widths, err := load(path, arrowfile.KindScores, arrowfile.ScoresFromRecord)
	if err != nil {
		return masking.Plan{}, masking.Report{}, err
	}
	return masking.SolveWidths(scores, widths, request)
}

func planText(path string, r masking.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d MACs (%.3fx), %+.2f %% off the budget, %.1f %% of the utility kept\n", path, r.MACs, r.DenseMACs, r.MACsRatio, 100*r.Miss, 100*r.KeptUtility)
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "layer\tgroup\tunits\tkept")
	for _, l := range r.Layers {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\n", l.Layer, l.Group, l.Units, l.Kept)
	}
	table.Flush()
	return b.String()
}
