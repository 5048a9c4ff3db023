package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"agflow/bridge/arrowfile"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/urfave/cli/v2"
)

func routeCommand() *cli.Command {
	return command(cli.Command{
		Name: "route", Usage: "set the threshold of a cascade from held-out predictions", Category: fileSteps,
		Flags: []cli.Flag{
			need("predictions", "predictions `FILE` of images that served neither expert"), place("output", "router.json", "router `FILE` to write"),
			place("curve", "", "also write accuracy and cost over all thresholds to `FILE`"), number("points", 200, "", "at most `N` rows of the curve"),
			text("prior", "", "`NAME` of the prior to route by, or auto for the one of the greatest AUROC; by default the first in the file"),
			text("answers", routing.HeavyAnswers, "what answers an image that escalates: heavy, or both experts, which have both seen it"),
			toleranceFlag(),
			limitFlagOf("charged", "instead, the charged `COST` to keep, as a ratio of the heavy expert's, at the best accuracy"),
			limitFlagOf("escalation", "instead, the `SHARE` of images that may escalate, at the best accuracy"), confidenceFlag(),
		},
	}, func(c *cli.Context) (outcome, error) {
		samples, err := load(c.String("predictions"), arrowfile.KindPredictions, arrowfile.SamplesFromRecord)
		if err != nil {
			return outcome{}, err
		}
		router, err := routing.NewRouter(samples.Samples, routerRequest(c))
		if err != nil {
			return outcome{}, err
		}
		if path := c.String("curve"); path != "" {
			if err := saveCurve(path, samples, router.Prior, c.String("answers"), c.Int("points")); err != nil {
				return outcome{}, err
			}
		}
		path := c.String("output")
		if _, err := arrowfile.WriteRouter(path, router); err != nil {
			return outcome{}, err
		}
		return outcome{router, routerText(path, router)}, nil
	})
}

func limitFlagOf(name, usage string) cli.Flag {
	return &cli.Float64Flag{Name: name, Usage: usage, EnvVars: env(name), DefaultText: "by --tolerance"}
}

// routerRequest leaves the tolerance out when it is the flag's default and another limit was given.
func routerRequest(c *cli.Context) routing.Request {
	given := func(name string) *float64 {
		if !c.IsSet(name) {
			return nil
		}
		value := c.Float64(name)
		return &value
	}
	r := routing.Request{
		Prior: c.String("prior"), Answers: c.String("answers"),
		Tolerance: given("tolerance"), Charged: given("charged"), Escalation: given("escalation"), Confidence: c.Float64("confidence"),
	}
	if r.Tolerance == nil && r.Charged == nil && r.Escalation == nil {
		tolerance := c.Float64("tolerance")
		r.Tolerance = &tolerance
	}
	return r
}

func saveCurve(path string, samples arrowfile.Samples, prior, answers string, points int) error {
	curve, err := samples.Curve(prior, answers, points)
	if err != nil {
		return err
	}
	return save(path, arrowfile.CurveToRecord(memory.DefaultAllocator, curve, samples, prior, answers))
}

func routerText(path string, r routing.Router) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s with confidence %g, from %d images", path, r.Verdict, promised(r.Threshold), r.Confidence, r.Samples)
	if r.NeededSamples > 0 {
		fmt.Fprintf(&b, "; about %d images would do", r.NeededSamples)
	}
	fmt.Fprintf(&b, "\n%s\n\n", thresholdText(r))
	writeCascade(&b, r.AccuracyLight, r.AccuracyHeavy, r.Point, r.Ledger)
	fmt.Fprintf(&b, "\ncharged cost: %s, break-even at %.1f %% escalated\n\n", r.Ledger.Verdict, 100*r.Ledger.BreakEven)
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "prior\tAUROC for the light expert's errors\n")
	for _, q := range r.Priors {
		fmt.Fprintf(table, "%s\t%.4f (%.4f to %.4f)\n", q.Prior, q.AUROC, q.Low, q.High)
	}
	table.Flush()
	b.WriteString("(intervals of 95 % confidence, each for itself)")
	return b.String()
}

func promised(t routing.Threshold) string {
	switch t.Target {
	case routing.AccuracyTarget:
		return fmt.Sprintf("accuracy(cascade) >= accuracy(heavy) - %g", t.Limit)
	case routing.EscalationTarget:
		return fmt.Sprintf("escalation <= %g", t.Limit)
	}
	return fmt.Sprintf("charged cost <= %gx", t.Limit)
}

func thresholdText(r routing.Router) string {
	switch r.Threshold.Threshold {
	case routing.EscalateAll:
		return "every image escalates"
	case routing.EscalateNone:
		return "no image escalates"
	}
	text := fmt.Sprintf("an image escalates when its %s is below %.6g", r.Prior, r.Threshold.Threshold)
	if r.Temperature != 1 {
		text += fmt.Sprintf(", at temperature %.4g", r.Temperature)
	}
	if r.Answers == routing.EnsembleAnswers {
		text += fmt.Sprintf("; both experts answer it then, the light one with weight %.4g", r.LightWeight)
	}
	return text
}

func percent(share float64, within routing.Interval) string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", 100*share, 100*within[0], 100*within[1])
}

func ratio(cost float64, within routing.Interval) string {
	return fmt.Sprintf("%.3fx (%.3f to %.3f)", cost, within[0], within[1])
}
