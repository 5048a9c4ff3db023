package main

import (
	"fmt"

	"agflow/bridge/tables"
	"agflow/core/routing"

	"github.com/urfave/cli/v2"
)

func decideCommand() *cli.Command {
	return command(cli.Command{
		Name: "decide",
		Usage: "decide which images escalate, and give the cascade's answers, " +
			"from the experts' logits",
		Category:  fileSteps,
		UsageText: "agflow decide --router router.json --light logits.arrow",
		Flags: []cli.Flag{
			need(place("router", "router `FILE` that route wrote")),
			need(place("light", "`FILE` with the light expert's logits of all images")),
			place("heavy", "`FILE` with the heavy expert's logits of the images that escalate, in "+
				"their order: with it, the predictions are the cascade's answers"),
			of("decide").output("decisions `FILE` to write"),
		},
	}, func(c *cli.Context) (outcome, error) {
		router, err := tables.ReadRouter(c.String("router"))
		if err != nil {
			return outcome{}, err
		}
		path, heavy := c.String("output"), c.String("heavy")
		var images, escalated int
		err = writeOutput(c, func(path string) (err error) {
			images, escalated, err = tables.Decide(router, c.String("light"), heavy, path)
			return err
		})
		if err != nil {
			return outcome{}, err
		}
		return decided(path, images, escalated, router, heavy != ""), nil
	})
}

func decided(
	path string, images, escalated int, router routing.Router, answered bool,
) outcome {
	text := fmt.Sprintf("%s: %d of %d images escalate: %s",
		path, escalated, images, thresholdText(router))
	if answered {
		by := "the heavy expert"
		if router.Answers == routing.EnsembleAnswers {
			by = "the ensemble of both experts"
		}
		text = fmt.Sprintf("%s: %d images answered, %d of them by %s", path, images, escalated, by)
	}
	return outcome{
		map[string]any{
			"output": path, "images": images, "escalated": escalated, "answered": answered,
		},
		text,
	}
}
