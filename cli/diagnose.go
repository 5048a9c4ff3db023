package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"agflow/core/diagnostics"
	"agflow/core/statistics"

	"github.com/urfave/cli/v2"
)

// diagnosis is what diagnose finds: Stability needs the statistics of several batches.
type diagnosis struct {
	diagnostics.Report
	Stability *diagnostics.StabilityReport `json:"stability"`
}

func diagnoseCommand() *cli.Command {
	return command(cli.Command{
		Name: "diagnose", Usage: "compare criteria on a statistics file; with several files, one a batch, also how stable the choice is",
		Category: fileSteps, ArgsUsage: "FILE...",
		Flags: []cli.Flag{
			list("criteria", nil, "`CRITERIA` to compare (default: all that the statistics allow)"),
			fraction("pruning-ratio", 0.5, "`SHARE` of each layer's units to remove"), seedFlag(),
			criterionFlag(), numbers("sizes", []int{10, 100}, "batches of a draw, for the stability of --criterion"), number("draws", 100, "", "draws of each size"),
		},
	}, func(c *cli.Context) (outcome, error) {
		seed, err := seed(c)
		if err != nil {
			return outcome{}, err
		}
		tables, err := loadStatistics(c.Args().Slice())
		if err != nil {
			return outcome{}, err
		}
		all, err := statistics.Merge(tables...)
		if err != nil {
			return outcome{}, err
		}
		var found diagnosis
		request := diagnostics.Request{Criteria: c.StringSlice("criteria"), PruningRatio: c.Float64("pruning-ratio"), Seed: seed}
		if found.Report, err = diagnostics.Diagnose(all, request); err != nil {
			return outcome{}, err
		}
		if len(tables) > 1 {
			stability, err := diagnostics.Stability(tables, diagnostics.StabilityRequest{
				Criterion: c.String("criterion"), PruningRatio: request.PruningRatio, Sizes: c.IntSlice("sizes"), Draws: c.Int("draws"), Seed: seed,
			})
			if err != nil {
				return outcome{}, err
			}
			found.Stability = &stability
		}
		return outcome{found, diagnosisText(found)}, nil
	})
}

// diagnosisText shows what holds over all layers; --json has every layer.
func diagnosisText(d diagnosis) string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "criterion\tmax/median\tp99/p1")
	for _, r := range d.Ranges {
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.Criterion, optional("%.1fx", r.Overall.MaxOverMedian), optional("%.1fx", r.Overall.P99OverP1))
	}
	fmt.Fprintf(table, "\nkept alike at pruning ratio %g\tJaccard\tby chance\trank correlation\n", d.PruningRatio)
	for _, a := range d.Agreements {
		fmt.Fprintf(table, "%s, %s\t%.3f\t%.3f\t%s\n", a.A, a.B, a.Overall.Jaccard, a.Overall.Chance, optional("%.3f", a.Overall.Spearman))
	}
	if s := d.Stability; s != nil {
		fmt.Fprintf(table, "\n%s by so many of %d batches\tJaccard with all\t5 %% of draws\t95 %%\n", s.Criterion, s.Batches)
		for _, size := range s.Sizes {
			fmt.Fprintf(table, "%d\t%.3f\t%.3f\t%.3f\n", size.Size, size.Overall.Mean, size.Overall.P5, size.Overall.P95)
		}
	}
	table.Flush()
	return b.String()
}

// optional formats a number that may not exist.
func optional(format string, value *float64) string {
	if value == nil {
		return "-"
	}
	return fmt.Sprintf(format, *value)
}
