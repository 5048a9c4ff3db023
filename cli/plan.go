package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"agflow/bridge/tables"
	"agflow/core/planning"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/urfave/cli/v2"
)

func planCommand() *cli.Command {
	return command(cli.Command{
		Name: "plan", Usage: "choose which units are kept under a budget", Category: fileSteps,
		Description: "The units are ranked by --statistics and a criterion, or by --scores.",
		UsageText:   "agflow plan --statistics statistics.arrow --macs 0.5",
		Before:      refuseTwoBudgets, Flags: planFlags(),
	}, func(c *cli.Context) (outcome, error) {
		if len(budgets(c)) == 0 {
			return outcome{}, usageError("a budget is missing: give --macs (such as 0.35), " +
				"--params, --latency-ms or --pruning-ratio (such as 0.5)")
		}
		from, err := planInput(c)
		if err != nil {
			return outcome{}, err
		}
		plan, report, err := planning.Solve(from, planning.Request{
			PruningRatio: c.Float64("pruning-ratio"), MACs: c.String("macs"),
			Params: c.String("params"), LatencyMS: c.Float64("latency-ms"),
			Joint: c.Bool("joint"), Floor: c.Float64("floor"), RoundTo: c.Int("round-to"),
			Groups:        groupsIn(from.Scores.Layers, c.StringSlice("groups")),
			IgnoredLayers: c.StringSlice("ignored-layers"),
		})
		if err != nil {
			return outcome{}, err
		}
		rec, err := tables.PlanToRecord(memory.DefaultAllocator, plan)
		if err != nil {
			return outcome{}, err
		}
		kept, err := tables.Kept(plan.Metadata)
		if err != nil {
			return outcome{}, err
		}
		path := c.String("output")
		if err := saveOutput(c, rec); err != nil {
			return outcome{}, err
		}
		return outcome{
			map[string]any{"output": path, "report": report, "kept": kept},
			planText(path, report, kept),
		}, nil
	})
}

// groupsIn are the groups that were named without the known ones that the layers lack, unless none
// is there: then the planner says so.
func groupsIn(layers []statistics.Layer, named []string) []string {
	lacks := func(kind string) bool {
		return !slices.ContainsFunc(layers,
			func(l statistics.Layer) bool { return l.Group == kind })
	}
	if !slices.ContainsFunc(named, func(kind string) bool { return !lacks(kind) }) {
		return named
	}
	return slices.DeleteFunc(slices.Clone(named),
		func(kind string) bool { return lacks(kind) && slices.Contains(groupKinds, kind) })
}

func planFlags() []cli.Flag {
	step := of("plan")
	return slices.Concat(inputs(
		place("statistics", "statistics `FILE` to score and rank by"),
		place("scores", "scores `FILE` to rank by, instead of --statistics"),
		place("latency", "latency `FILE` of this model, made by agflow bench layers"),
	), budget(
		aBudget(place("macs", "largest `MACS`: a share of the model's (0.35), or 350M, 1.2G")),
		aBudget(place("params",
			"largest number of `PARAMETERS`: a share of the model's (0.5), or 2.5M")),
		&cli.Float64Flag{
			Name: "latency-ms", DefaultText: "by --macs",
			Usage: "largest `MILLISECONDS` of a batch, by the table of --latency",
		},
		pruningRatioFlag(),
	), method(
		criterionFlag("with --statistics, `NAME` of the criterion"),
		settings("groups", "`GROUPS` to prune: kinds such as "+strings.Join(groupKinds, ", ")+
			" (default: all)"),
		&cli.StringFlag{
			Name: "widths",
			DefaultText: standard[string](step, "widths") +
				", or --criterion for statistics without reader weights; uniform for --scores",
			Usage: "`WIDTHS`, how layers share the units: uniform, the name of a criterion " +
				"(with --statistics) or a scores file (with --scores)",
		},
		step.toggle("joint", "one order over all groups, by normalised importance per cost"),
		step.fraction("floor",
			"least `SHARE` of each layer's units that is kept; whole branches may be removed"),
	), outputs(
		step.output("plan `FILE` to write"),
	), advanced(
		roundToFlag(), ignoredLayersFlag(), seedFlag(),
	))
}

func planText(path string, r planning.Report, kept []tables.KeptChannels) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d MACs (%.3fx), %d of %d parameters",
		path, r.MACs, r.DenseMACs, r.MACsRatio, r.Params, r.DenseParams)
	if r.DenseLatencyMS > 0 {
		fmt.Fprintf(&b, ", %.2f of %.2f ms", r.LatencyMS, r.DenseLatencyMS)
	}
	fmt.Fprintf(&b, ", %+.2f %% off the budget\n", 100*r.Miss)
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "layer\tgroup\tunits\tkept")
	for _, l := range r.Layers {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\n", l.Layer, l.Group, l.Units, l.Kept)
	}
	table.Flush()
	for _, channels := range kept {
		fmt.Fprintln(&b, oneLine(channels.String()))
	}
	return b.String()
}
