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
	step := of("diagnose")
	return command(cli.Command{
		Name: "diagnose",
		Usage: "compare criteria on a statistics file; with several files, one a batch, " +
			"also how stable the choice of units is",
		Category: fileSteps, ArgsUsage: "FILE...",
		UsageText: "agflow diagnose statistics.arrow",
		Flags: method(
			settings("criteria", "`CRITERIA` to compare (default: all that the statistics allow)"),
			step.fraction("pruning-ratio", "`SHARE` of each layer's units to remove"), seedFlag(),
			criterionFlag("`NAME` of the criterion whose stability is measured"),
			step.numbers("sizes", "`N` batches a draw, for the stability"),
			step.number("draws", "`N` draws of each size"),
		),
	}, func(c *cli.Context) (outcome, error) {
		found, err := diagnose(c)
		if err != nil {
			return outcome{}, err
		}
		return outcome{found, diagnosisText(found)}, nil
	})
}

func diagnose(c *cli.Context) (found diagnosis, err error) {
	seed, err := seed(c)
	if err != nil {
		return found, err
	}
	tables, err := loadStatistics(c.Args().Slice())
	if err != nil {
		return found, err
	}
	all, err := statistics.Merge(tables...)
	if err != nil {
		return found, err
	}
	pruningRatio := c.Float64("pruning-ratio")
	found.Report, err = diagnostics.Diagnose(all, diagnostics.Request{
		Criteria: c.StringSlice("criteria"), PruningRatio: pruningRatio, Seed: seed,
	})
	if err != nil || len(tables) < 2 {
		return found, err
	}
	stability, err := diagnostics.Stability(tables, diagnostics.StabilityRequest{
		Criterion: c.String("criterion"), PruningRatio: pruningRatio,
		Sizes: c.IntSlice("sizes"), Draws: c.Int("draws"), Seed: seed,
	})
	found.Stability = &stability
	return found, err
}

// diagnosisText shows what holds over all layers; --json has every layer.
func diagnosisText(d diagnosis) string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "criterion\tmax/median\tp99/p1")
	for _, r := range d.Ranges {
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.Criterion,
			optionalText("%.1fx", r.Overall.MaxOverMedian),
			optionalText("%.1fx", r.Overall.P99OverP1))
	}
	fmt.Fprintf(table, "\nunits kept at pruning ratio %g\tJaccard\tby chance\trank correlation\n",
		d.PruningRatio)
	for _, a := range d.Agreements {
		fmt.Fprintf(table, "%s, %s\t%.3f\t%.3f\t%s\n", a.A, a.B, a.Overall.Jaccard,
			a.Overall.Chance, optionalText("%.3f", a.Overall.Spearman))
	}
	if s := d.Stability; s != nil {
		fmt.Fprintf(table, "\n%s by draws from %d batches\tJaccard with all\t5 %% of draws\t95 %%",
			s.Criterion, s.Batches)
		fmt.Fprintln(table)
		for _, size := range s.Sizes {
			fmt.Fprintf(table, "%d\t%.3f\t%.3f\t%.3f\n",
				size.Size, size.Overall.Mean, size.Overall.P5, size.Overall.P95)
		}
	}
	table.Flush()
	return b.String()
}

// optionalText formats a number that may not exist.
func optionalText(format string, value *float64) string {
	if value == nil {
		return "-"
	}
	return fmt.Sprintf(format, *value)
}
