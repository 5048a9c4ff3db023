package main

import (
	"fmt"
	"slices"
	"strings"

	"agflow/bridge/tables"
	"agflow/core/routing"

	"github.com/urfave/cli/v2"
)

func evaluateRouterCommand() *cli.Command {
	return command(cli.Command{
		Name:      "evaluate-router",
		Usage:     "evaluate a router on the predictions of test images",
		Category:  fileSteps,
		UsageText: "agflow evaluate-router --router router.json --predictions test.arrow",
		Flags: slices.Concat([]cli.Flag{
			need(place("router", "router `FILE` that route wrote")),
		}, answerFlags("predictions `FILE` of images that chose nothing of the cascade: agflow's, "+
			"or a table with the columns label, light_* and heavy_*"), []cli.Flag{checkFlag()}),
	}, func(c *cli.Context) (outcome, error) {
		if err := checkAnswers(c); err != nil {
			return outcome{}, err
		}
		router, err := tables.ReadRouter(c.String("router"))
		if err != nil {
			return outcome{}, err
		}
		found, err := evaluateFiles(c, router)
		if err != nil {
			return outcome{}, err
		}
		text := evaluationText(c.String("router"), router, found)
		return outcome{found, text}, checkError(c, found.Counts)
	})
}

// evaluateFiles evaluates a router on the files that were named; without a cost of their own they
// have the router's.
func evaluateFiles(
	c *cli.Context, router routing.Router,
) (found routing.RouterEvaluation, err error) {
	paid, err := givenCost(c)
	if err != nil {
		return found, err
	}
	if !isForeign(c) {
		err = tables.Lend(c.String("predictions"), tables.KindPredictions,
			tables.SamplesFor(router, paid), func(s tables.Samples) (err error) {
				found, err = routing.EvaluateRouter(s.Samples, router)
				return err
			})
		return found, err
	}
	answer := struct {
		Evaluation *routing.RouterEvaluation `json:"evaluation"`
	}{&found}
	err = askAnswers(c, "evaluate_answers", nil, &answer)
	return found, err
}

func evaluationText(path string, r routing.Router, found routing.RouterEvaluation) string {
	var b strings.Builder
	writeVerdict(&b, path, found.Counts)
	fmt.Fprintf(&b, "%d test images: %s\n\n", found.Ledger.Samples, thresholdText(r))
	writeCascade(&b, found.LightAccuracy, found.HeavyAccuracy, found.Point, found.Ledger)
	d := found.Difference
	fmt.Fprintf(&b, "\nagainst the heavy expert alone: %+.2f points (%+.2f to %+.2f), %d images "+
		"lost and %d gained (95 %% confidence intervals, each by itself)\n%s\n", 100*d.Observed,
		100*d.Interval[0], 100*d.Interval[1], found.Lost, found.Gained, costsText(found.Ledger))
	writeNext(&b, found.Counts, "route new images: agflow decide --router "+path+
		" --light LOGITS, or agflow.Cascade in Python")
	return b.String()
}
