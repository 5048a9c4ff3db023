package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"agflow/bridge/tables"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/urfave/cli/v2"
)

func routeCommand() *cli.Command {
	return command(cli.Command{
		Name: "route", Usage: "set the threshold of a cascade from held-out predictions",
		UsageText: "agflow route --predictions predictions.arrow --tolerance 0.01",
		Category:  fileSteps, Flags: routeFlags(),
	}, func(c *cli.Context) (outcome, error) {
		if err := checkAnswers(c); err != nil {
			return outcome{}, err
		}
		found, err := routeFiles(c)
		if err != nil {
			return outcome{}, err
		}
		path := c.String("output")
		err = writeOutput(c, func(path string) error {
			_, err := tables.WriteRouter(path, found.router)
			return err
		})
		if err == nil && found.curve != nil {
			err = save(c.String("curve"), found.curve)
		}
		if err != nil {
			return outcome{}, err
		}
		verdict := routing.NewVerdict(found.router.Threshold,
			routing.Evidence{Ledger: found.router.Ledger})
		value := counted{found.router, verdict}
		return outcome{value, routerText(path, value)}, checkError(c, verdict)
	})
}

func routeFlags() []cli.Flag {
	step := of("route")
	return slices.Concat(answerFlags("predictions `FILE` of images that trained neither expert: "+
		"agflow's, or a table with the columns label, light_* and heavy_*"), method(
		setting("prior", "`NAME` of the prior to route by, or auto for the one of the greatest "+
			"AUROC (default: the first in the file)"),
		ensembleFlag(),
	), budget(
		toleranceFlag(step),
		limitOf("charged", "instead, the greatest expected `COST` per image, as a ratio of the "+
			"heavy expert's, at the best accuracy"),
		limitOf("escalation",
			"instead, the greatest `SHARE` of images that escalate, at the best accuracy"),
		confidenceFlag(),
	), outputs(
		step.output("router `FILE` to write"),
		place("curve", "also write accuracy and cost over all thresholds to `FILE`"),
		step.number("points", "at most `N` rows of the curve"), checkFlag(),
	))
}

// limitOf is a limit that takes the place of the tolerance.
func limitOf(name, usage string) cli.Flag {
	return &cli.Float64Flag{
		Name: name, Usage: usage, EnvVars: env(name), DefaultText: "by --tolerance",
	}
}

// answers is what answers an image that escalates, as the files name it.
func answers(c *cli.Context) string {
	if c.Bool("ensemble") {
		return routing.EnsembleAnswers
	}
	return routing.HeavyAnswers
}

// routerRequest leaves the default tolerance out where another limit was given.
func routerRequest(c *cli.Context) routing.Request {
	given := func(name string) *float64 {
		if !c.IsSet(name) {
			return nil
		}
		value := c.Float64(name)
		return &value
	}
	r := routing.Request{
		Prior: c.String("prior"), Answers: answers(c), Confidence: c.Float64("confidence"),
		Tolerance: given("tolerance"), Charged: given("charged"), Escalation: given("escalation"),
	}
	if r.Tolerance == nil && r.Charged == nil && r.Escalation == nil {
		tolerance := c.Float64("tolerance")
		r.Tolerance = &tolerance
	}
	return r
}

// routed is what route computes of predictions; the curve is nil where none was asked for.
type routed struct {
	router routing.Router
	curve  arrow.Record
}

// routeFiles calibrates a router on the files that were named.
func routeFiles(c *cli.Context) (found routed, err error) {
	paid, err := givenCost(c)
	if err != nil {
		return found, err
	}
	if !isForeign(c) {
		err = tables.Lend(c.String("predictions"), tables.KindPredictions, tables.SamplesAt(paid),
			func(s tables.Samples) (err error) {
				found, err = route(c, s)
				return err
			})
		return found, err
	}
	asked := routerRequest(c)
	var answer struct {
		Router routing.Router `json:"router"`
	}
	err = askAnswers(c, "route_answers", map[string]any{"tolerance": asked.Tolerance}, &answer)
	return routed{router: answer.Router}, err
}

func route(c *cli.Context, samples tables.Samples) (found routed, err error) {
	if found.router, err = routing.NewRouter(samples.Samples, routerRequest(c)); err != nil {
		return found, err
	}
	if c.String("curve") == "" {
		return found, nil
	}
	prior, answers := found.router.Prior, answers(c)
	points, err := samples.Curve(prior, answers, c.Int("points"))
	if err == nil {
		found.curve = tables.CurveToRecord(memory.DefaultAllocator, points, samples, prior, answers)
	}
	return found, err
}

// counted is a router with the verdict on it, on both counts.
type counted struct {
	routing.Router
	Counts routing.Verdict `json:"counts"`
}

func routerText(path string, r counted) string {
	var b strings.Builder
	writeVerdict(&b, path, r.Counts)
	fmt.Fprintf(&b, "%s\n\n", thresholdText(r.Router))
	writeCascade(&b, r.AccuracyLight, r.AccuracyHeavy, r.Point, r.Ledger)
	fmt.Fprintf(&b, "\n%s\n\n", costsText(r.Ledger))
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "prior\tAUROC for the light expert's errors\n")
	for _, q := range r.Priors {
		fmt.Fprintf(table, "%s\t%.4f (%.4f to %.4f)\n", q.Prior, q.AUROC, q.Low, q.High)
	}
	table.Flush()
	b.WriteString("(95 % confidence intervals, each by itself)\n")
	writeNext(&b, r.Counts, "evaluate it on test images, which chose nothing: agflow "+
		"evaluate-router --router "+path+" --predictions FILE")
	return b.String()
}
