package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"agflow/core/routing"
)

// What route, evaluate-router and decide say about a router and its cascade.

func thresholdText(r routing.Router) string {
	switch r.Threshold.Threshold {
	case routing.EscalateAll:
		return "every image escalates"
	case routing.EscalateNone:
		return "no image escalates"
	}
	text := fmt.Sprintf("an image escalates when its %s is below %.6g",
		r.Prior, r.Threshold.Threshold)
	if r.Temperature != 1 {
		text += fmt.Sprintf(", at temperature %.4g", r.Temperature)
	}
	if r.Answers == routing.EnsembleAnswers {
		text += fmt.Sprintf("; then the ensemble of both experts answers it, "+
			"the light one with weight %.4g", r.LightWeight)
	}
	return text
}

// writeVerdict writes the lines that a text about a cascade begins with.
func writeVerdict(b *strings.Builder, path string, v routing.Verdict) {
	fmt.Fprintf(b, "%s\n%s: %s\n", v.Line, path, v.Meaning)
}

// writeNext writes the last line: what to do about a cascade, or with one that may be deployed.
func writeNext(b *strings.Builder, v routing.Verdict, deployed string) {
	next := v.Cure
	if v.Deploy {
		next = deployed
	}
	fmt.Fprintf(b, "next: %s", next)
}

// writeCascade writes a table of a cascade beside its experts and beside random routing. The
// expected cost per image is Ledger.Charged: it counts the light pass of images that escalate, too.
func writeCascade(
	b *strings.Builder, lightAccuracy, heavyAccuracy float64, p routing.Point, l routing.Ledger,
) {
	alone := func(accuracy float64) string {
		return percent(accuracy, routing.Wilson(accuracy, float64(l.Samples)))
	}
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\taccuracy %%\tescalated %%\texpected cost\twithout their light pass\n")
	light := l.LightCost / l.HeavyCost
	fmt.Fprintf(table, "light expert\t%s\t0\t%.3fx\t%.3fx\n", alone(lightAccuracy), light,
		light)
	fmt.Fprintf(table, "heavy expert\t%s\t100\t1.000x\t1.000x\n", alone(heavyAccuracy))
	rest := fmt.Sprintf("%s\t%s\t%s", percent(p.Escalation, p.EscalationInterval),
		ratio(p.Charged, p.ChargedInterval), ratio(p.Uncharged, p.UnchargedInterval))
	fmt.Fprintf(table, "cascade\t%s\t%s\n", percent(p.Accuracy, p.AccuracyInterval), rest)
	fmt.Fprintf(table, "random routing\t%s\t%s\n",
		percent(p.RandomAccuracy, p.RandomInterval), rest)
	table.Flush()
}

// costsText says what an image costs, by which the ratios of a ledger are to be read.
func costsText(l routing.Ledger) string {
	text := fmt.Sprintf("break-even at %.1f %% escalated; costs of one image: light %s, heavy %s",
		100*l.BreakEven,
		costText(l.LightCost, l.CostUnit), costText(l.HeavyCost, l.CostUnit))
	if l.SharedCost > 0 {
		text += ", shared " + costText(l.SharedCost, l.CostUnit)
	}
	return text
}

func costText(cost float64, unit string) string {
	switch unit {
	case routing.MACs:
		return fmt.Sprintf("%.2f M MACs", cost/1e6)
	case routing.Relative:
		return fmt.Sprintf("%.4gx", cost)
	}
	return fmt.Sprintf("%.4g %s", cost, unit)
}

func percent(share float64, within routing.Interval) string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", 100*share, 100*within[0], 100*within[1])
}

func ratio(cost float64, within routing.Interval) string {
	return fmt.Sprintf("%.3fx (%.3f to %.3f)", cost, within[0], within[1])
}
