package main

import (
	"fmt"

	"agflow/bridge/ipcfile"
	"agflow/bridge/tables"
	"agflow/core/routing"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/urfave/cli/v2"
)

func decideCommand() *cli.Command {
	return command(cli.Command{
		Name: "decide",
		Usage: "decide which images escalate, and give the cascade's answers, " +
			"from the experts' logits",
		Category: fileSteps,
		Flags: []cli.Flag{
			need("router", "router `FILE` that route wrote"),
			need("light", "`FILE` with the light expert's logits of all images"),
			place("heavy", "`FILE` with the heavy expert's logits of the images that escalate, in "+
				"their order: with it, the predictions are the cascade's answers"),
			of("decide").output("decisions `FILE` to write"),
		},
	}, func(c *cli.Context) (outcome, error) {
		router, err := tables.ReadRouter(c.String("router"))
		if err != nil {
			return outcome{}, err
		}
		decisions, err := decide(router, c.String("light"), c.String("heavy"))
		if err != nil {
			return outcome{}, err
		}
		path, answered := c.String("output"), c.String("heavy") != ""
		rec := tables.DecisionsToRecord(memory.DefaultAllocator, decisions, router, answered)
		if err := save(path, rec); err != nil {
			return outcome{}, err
		}
		return decided(path, decisions, router, answered), nil
	})
}

// decide reads the logits of the heavy expert where a file of them is named.
func decide(router routing.Router, lightPath, heavyPath string) (routing.Decisions, error) {
	step := router.Decide
	if heavyPath != "" {
		heavy, err := readLogits(heavyPath)
		if err != nil {
			return routing.Decisions{}, err
		}
		step = func(light tensor.View) (routing.Decisions, error) {
			return router.Answer(light, heavy)
		}
	}
	return load(lightPath, tables.KindLogits, func(rec arrow.Record) (routing.Decisions, error) {
		light, err := tables.LogitsFromRecord(rec)
		if err != nil {
			return routing.Decisions{}, err
		}
		return step(light)
	})
}

// readLogits copies the logits of a file into memory that Go collects.
func readLogits(path string) (tensor.View, error) {
	rec, err := ipcfile.Read(path, tables.KindLogits, memory.DefaultAllocator)
	if err != nil {
		return tensor.View{}, err
	}
	return tables.LogitsFromRecord(rec)
}

func decided(path string, d routing.Decisions, router routing.Router, answered bool) outcome {
	images, escalated := len(d.Prediction), len(d.Escalated())
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
