package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"agflow/bridge/ipcfile"
	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/routing"
	"agflow/core/routing/monitor"

	"github.com/urfave/cli/v2"
)

func monitorCommand() *cli.Command {
	return command(cli.Command{
		Name:  "monitor",
		Usage: "watch a cascade's promise over files, in order of time",
		Description: "Files are predictions, each image of which counts as audited, in the order " +
			"named; or audit records (JSON lines) of one server or of several, merged by their " +
			"times. It says what each of the four watches found, and when.",
		Category: fileSteps, ArgsUsage: "FILE...",
		UsageText: "agflow monitor --router router.json --calibration held-out.arrow served.arrow",
		Flags:     monitorFlags(),
	}, func(c *cli.Context) (outcome, error) {
		router, err := tables.ReadRouter(c.String("router"))
		if err != nil {
			return outcome{}, err
		}
		watching, err := startMonitor(c, router)
		if err != nil {
			return outcome{}, err
		}
		if err := watchFiles(watching, c.Args().Slice(), router); err != nil {
			return outcome{}, err
		}
		if path := c.String("state"); path != "" {
			content, err := watching.State()
			if err == nil {
				err = ipcfile.WriteBytes(path, content)
			}
			if err != nil {
				return outcome{}, err
			}
		}
		report := watching.Report()
		return outcome{report, reportText(report)}, checkAlarms(c, report)
	})
}

func monitorFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		need(place("router", "router `FILE` that route wrote")),
	}, inputs(
		inputFile(place("calibration", "predictions `FILE` that route read: without it the "+
			"agreement is not watched, and priors are compared with those before alone")),
	), method(
		within(0, 1, false, of("monitor").fraction("level",
			"`SHARE` of lives in which one watch may raise a false alarm")),
		seedFlag(),
	), outputs(
		place("state", "continue from what `FILE` holds, if it is there, and save it again"),
		&cli.BoolFlag{
			Name: "check", EnvVars: env("check"), DisableDefaultText: true, Category: outputGroup,
			Usage: fmt.Sprintf("exit with status %d if a watch raised its alarm", exitCheck),
		},
	))
}

// startMonitor returns a monitor that begins, or one that continues from its state.
func startMonitor(c *cli.Context, router routing.Router) (w *monitor.Monitor, err error) {
	options := monitor.DefaultOptions()
	options.Level = c.Float64("level")
	if options.Seed, err = seed(c); err != nil {
		return nil, err
	}
	var calibration *monitor.Calibration
	if path := c.String("calibration"); path != "" {
		if calibration, err = readCalibration(path, router); err != nil {
			return nil, err
		}
	}
	path := c.String("state")
	if path == "" {
		return monitor.New(router, calibration, options)
	}
	if _, missing := os.Stat(path); os.IsNotExist(missing) {
		return monitor.New(router, calibration, options)
	}
	content, err := ipcfile.ReadBytes(path, monitor.MaxState)
	if err != nil {
		return nil, err
	}
	if w, err = monitor.Restore(content, router, calibration, options); err != nil {
		return nil, ipcfile.Named(path, err)
	}
	return w, nil
}

func readCalibration(path string, router routing.Router) (*monitor.Calibration, error) {
	found, err := readAnswers(path, router)
	if err != nil {
		return nil, err
	}
	c, err := monitor.NewCalibration(router, found.Prior, found.Light, found.Heavy, found.Ensemble)
	if err != nil {
		return nil, ipcfile.Named(path, err)
	}
	return c, nil
}

// readAnswers reads predictions without Python.
func readAnswers(path string, router routing.Router) (tables.Answers, error) {
	if !tables.ReadsPredictions(path) {
		return tables.Answers{}, usageError("%s is read by Python only: give predictions that "+
			"agflow wrote, or an Arrow file with the columns label, light_prediction, "+
			"light_prior and heavy_prediction", path)
	}
	return tables.ReadAnswers(path, router)
}

// watchFiles lets a monitor see all images of files of one kind.
func watchFiles(watching *monitor.Monitor, paths []string, router routing.Router) error {
	records := 0
	for _, path := range paths {
		if err := checkInput("FILE", path); err != nil {
			return err
		}
		if isRecords(path) {
			records++
		}
	}
	switch records {
	case 0:
		return watchPredictions(watching, paths, router)
	case len(paths):
		return watchRecords(watching, paths)
	}
	return usageError("%d of %d files are audit records and the others are none: watch either "+
		"predictions or audit records", records, len(paths))
}

// watchPredictions counts each image as audited: both experts have answered it.
func watchPredictions(
	watching *monitor.Monitor, paths []string, router routing.Router,
) error {
	for _, path := range paths {
		found, err := readAnswers(path, router)
		if err != nil {
			return err
		}
		for i := range found.Prior {
			if err := watching.Observe(imageOf(found, i, router)); err != nil {
				return fault.New(fault.CodeOf(err), "%s, row %d: %s", path, i,
					fault.Sentence(err))
			}
		}
	}
	return nil
}

func imageOf(a tables.Answers, i int, router routing.Router) monitor.Image {
	heavy, label := int(a.Heavy[i]), int(a.Label[i])
	image := monitor.Image{
		Prior: a.Prior[i], Escalated: router.Escalates(a.Prior[i]), Draw: monitor.Everything,
		Answer: int(a.Light[i]), Heavy: &heavy, Label: &label,
	}
	switch {
	case image.Escalated && router.Answers == routing.EnsembleAnswers:
		image.Answer = int(a.Ensemble[i])
	case image.Escalated:
		image.Answer = heavy
	}
	return image
}

// checkAlarms is the error of --check where a watch raised its alarm.
func checkAlarms(c *cli.Context, r monitor.Report) error {
	var raised []string
	for _, w := range r.Watches {
		if w.Alarm != nil {
			raised = append(raised, w.Name)
		}
	}
	if !c.Bool("check") || len(raised) == 0 {
		return nil
	}
	return statusError{fmt.Errorf("--check: alarm of %s: calibrate the router again on images as "+
		"they come now, or find out what changed", strings.Join(raised, ", ")), exitCheck}
}

func reportText(r monitor.Report) string {
	var b strings.Builder
	if r.Alarm != "" {
		fmt.Fprintf(&b, "ALARM: %s\n", r.Alarm)
	}
	fmt.Fprintf(&b, "promised: %s\n%d images, %d of them audited beside those that escalate, %d "+
		"audits with labels\n\n", r.Promise, r.Images, r.Audited, r.Labelled)
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, w := range r.Watches {
		fmt.Fprintf(table, "%s\t%s\n", w.Name, w.Says)
	}
	table.Flush()
	e := r.Escalation
	fmt.Fprintf(&b, "\nescalated: %s %% of the last %d images, %s %% calibrated\n",
		percent(e.Live, e.LiveInterval), e.LiveImages,
		percent(e.Calibrated, e.CalibratedInterval))
	if r.Loss != nil {
		fmt.Fprintf(&b, "lost against the heavy expert: %s points on the last %d labelled audits\n",
			percent(r.Loss.Value, r.Loss.Interval), r.Loss.Audits)
	}
	if r.Disagreement != nil {
		fmt.Fprintf(&b, "answers that differ from the heavy expert's: %s %% of the last %d "+
			"audits\n", percent(r.Disagreement.Value, r.Disagreement.Interval),
			r.Disagreement.Audits)
	}
	b.WriteString("(95 % confidence intervals, each by itself)")
	return b.String()
}
