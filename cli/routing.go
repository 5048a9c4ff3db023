package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"syscall"

	"agflow/bridge/arrowfile"
	"agflow/core/fault"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/urfave/cli/v2"
)

// router is the content of router.json, which agflow.Router reads too; the ledger is of the calibration samples.
type router struct {
	Format int    `json:"format"`
	Prior  string `json:"prior"`
	routing.Threshold
	Ledger routing.Ledger `json:"ledger"`
}

func routeCommand() *cli.Command {
	return command(cli.Command{
		Name: "route", Usage: "set the threshold of a cascade from held-out predictions", Category: fileSteps,
		Flags: []cli.Flag{
			need("predictions", "predictions `FILE` of images that served neither expert"), place("output", "router.json", "router `FILE` to write"),
			place("curve", "", "also write accuracy and cost over all thresholds to `FILE`"), number("points", 200, "", "at most `N` rows of the curve"),
			toleranceFlag(), confidenceFlag(),
		},
	}, func(c *cli.Context) (outcome, error) {
		predictions, err := load(c.String("predictions"), arrowfile.KindPredictions, arrowfile.PredictionsFromRecord)
		if err != nil {
			return outcome{}, err
		}
		found, err := newRouter(predictions, c.Float64("tolerance"), c.Float64("confidence"))
		if err != nil {
			return outcome{}, err
		}
		if path := c.String("curve"); path != "" {
			points, err := routing.Curve(predictions.Outcomes(), predictions.Cost, c.Int("points"))
			if err != nil {
				return outcome{}, err
			}
			if err := save(path, arrowfile.CurveToRecord(memory.DefaultAllocator, points, predictions)); err != nil {
				return outcome{}, err
			}
		}
		path := c.String("output")
		if err := writeJSON(path, found); err != nil {
			return outcome{}, err
		}
		return outcome{found, routerText(path, found)}, nil
	})
}

func newRouter(p arrowfile.Predictions, tolerance, confidence float64) (router, error) {
	threshold, err := routing.Calibrate(p.Outcomes(), tolerance, confidence)
	if err != nil {
		return router{}, err
	}
	escalated := int64(math.Round(threshold.Escalation * float64(threshold.Samples)))
	ledger, err := routing.NewLedger(p.Cost, threshold.Samples, escalated)
	return router{1, p.Prior, threshold, ledger}, err
}

func routerText(path string, r router) string {
	needed := ""
	if r.NeededSamples > 0 {
		needed = fmt.Sprintf(", about %d images would do", r.NeededSamples)
	}
	return fmt.Sprintf("%s: %s%s\nthreshold   %.4f, from %d images\naccuracy    light %.2f %%, heavy %.2f %%, cascade %.2f %%\n"+
		"escalation  %.1f %%\ncost        %.3fx charged, %.3fx uncharged, break-even at %.1f %% escalated: %s",
		path, r.Verdict, needed, r.Threshold.Threshold, r.Samples, 100*r.AccuracyLight, 100*r.AccuracyHeavy, 100*r.AccuracyCascade,
		100*r.Escalation, r.Ledger.Charged, r.Ledger.Uncharged, 100*r.Ledger.BreakEven, r.Ledger.Verdict)
}

func writeJSON(path string, value any) error {
	encoded, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	err = arrowfile.WriteBytes(path, append(encoded, '\n'))
	var reason syscall.Errno
	if errors.As(err, &reason) {
		return fault.New(fault.IO, "%s was not written: %w: choose a writable folder with space", path, reason)
	}
	return err
}
