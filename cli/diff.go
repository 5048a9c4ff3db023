package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"agflow/bridge/tables"
	"agflow/core/planning"

	"github.com/urfave/cli/v2"
)

func diffCommand() *cli.Command {
	return command(cli.Command{
		Name: "diff", Usage: "compare the units that two plans keep",
		Category: fileSteps, ArgsUsage: "PLAN PLAN",
		UsageText: "agflow diff one.arrow other.arrow",
	}, func(c *cli.Context) (outcome, error) {
		if c.NArg() != 2 {
			return outcome{}, usageError("agflow diff compares 2 plans, and %d were named: "+
				"agflow diff a.arrow b.arrow", c.NArg())
		}
		var plans [2]planning.Plan
		for i, path := range c.Args().Slice() {
			plan, err := load(path, tables.KindPlan, tables.PlanFromRecord)
			if err != nil {
				return outcome{}, err
			}
			plans[i] = plan
		}
		found, err := planning.Diff(plans[0], plans[1])
		if err != nil {
			return outcome{}, err
		}
		return outcome{found, diffText(found)}, nil
	})
}

func diffText(d planning.Difference) string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "layer\tgroup\tunits\tfirst\tsecond\tboth\tJaccard")
	for _, l := range d.Layers {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%.3f\n",
			l.Layer, l.Group, l.Units, l.A, l.B, l.Both, l.Jaccard)
	}
	fmt.Fprintf(table, "all\t\t%d\t%d\t%d\t%d\t%.3f\n", d.Units, d.A, d.B, d.Both, d.Jaccard)
	table.Flush()
	return b.String()
}
