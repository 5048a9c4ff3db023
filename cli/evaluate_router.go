package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"agflow/bridge/arrowfile"
	"agflow/core/routing"

	"github.com/urfave/cli/v2"
)

func judgeCommand() *cli.Command {
	return command(cli.Command{
		Name: "judge", Usage: "say what a router makes of predictions that did not calibrate it", Category: fileSteps,
		Flags: []cli.Flag{
			need("router", "router `FILE` that route wrote"), need("predictions", "predictions `FILE` of images that chose nothing of the cascade"),
		},
	}, func(c *cli.Context) (outcome, error) {
		router, err := arrowfile.ReadRouter(c.String("router"))
		if err != nil {
			return outcome{}, err
		}
		samples, err := load(c.String("predictions"), arrowfile.KindPredictions, arrowfile.SamplesFromRecord)
		if err != nil {
			return outcome{}, err
		}
		found, err := routing.EvaluateRouter(samples.Samples, router)
		if err != nil {
			return outcome{}, err
		}
		return outcome{found, judgementText(c.String("router"), router, found)}, nil
	})
}

func judgementText(path string, r routing.Router, found routing.RouterEvaluation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %d images: %s\n\n", path, found.Ledger.Samples, thresholdText(r))
	writeCascade(&b, found.LightAccuracy, found.HeavyAccuracy, found.Point, found.Ledger)
	fmt.Fprintf(&b, "\nagainst the heavy expert alone, %d images lost and %d gained (intervals of 95 %% confidence, each for itself)", found.Lost, found.Gained)
	return b.String()
}

// writeCascade is a table of a cascade beside its experts and beside random routing.
func writeCascade(b *strings.Builder, lightAccuracy, heavyAccuracy float64, p routing.Point, l routing.Ledger) {
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\taccuracy %%\tescalated %%\tcost charged\tcost uncharged\n")
	light := float64(l.LightMACs) / float64(l.HeavyMACs)
	fmt.Fprintf(table, "light expert\t%.2f\t0\t%.3fx\t%.3fx\n", 100*lightAccuracy, light, light)
	fmt.Fprintf(table, "heavy expert\t%.2f\t100\t1.000x\t1.000x\n", 100*heavyAccuracy)
	rest := fmt.Sprintf("%s\t%s\t%s", percent(p.Escalation, p.EscalationInterval), ratio(p.Charged, p.ChargedInterval), ratio(p.Uncharged, p.UnchargedInterval))
	fmt.Fprintf(table, "cascade\t%s\t%s\n", percent(p.Accuracy, p.AccuracyInterval), rest)
	fmt.Fprintf(table, "random routing\t%s\t%s\n", percent(p.RandomAccuracy, p.RandomInterval), rest)
	table.Flush()
}
