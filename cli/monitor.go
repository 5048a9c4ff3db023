package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"agflow/bridge/ipcfile"
	"agflow/bridge/tables"
	"agflow/cli/serving"
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
			"times; or the --state files of several servers, the mean of whose evidence counts. " +
			"It says what each of the four watches found, and when.",
		Category: fileSteps, ArgsUsage: "FILE...",
		UsageText: "agflow monitor --router router.json --calibration held-out.arrow served.arrow",
		Flags:     monitorFlags(),
	}, func(c *cli.Context) (outcome, error) {
		router, err := tables.ReadRouter(c.String("router"))
		if err != nil {
			return outcome{}, err
		}
		found, err := monitoredFiles(c.Args().Slice())
		if err != nil {
			return outcome{}, err
		}
		began, err := monitorStartOf(c, router)
		if err != nil {
			return outcome{}, err
		}
		if found == replicaStates {
			return watchReplicas(c, began)
		}
		return watchFiles(c, began, found)
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

// monitorStart is what a monitor begins or continues with.
type monitorStart struct {
	router      routing.Router
	calibration *monitor.Calibration // nil for none
	options     monitor.Options
}

func monitorStartOf(c *cli.Context, router routing.Router) (s monitorStart, err error) {
	s = monitorStart{router: router, options: monitor.DefaultOptions()}
	s.options.Level = c.Float64("level")
	if s.options.Seed, err = seed(c); err != nil {
		return s, err
	}
	if path := c.String("calibration"); path != "" {
		s.calibration, err = readCalibration(path, router)
	}
	return s, err
}

// open continues the evidence in a file, or begins where there is none.
func (s monitorStart) open(path, cure string) (*monitor.Monitor, error) {
	m, err := serving.OpenMonitor(path, s.router, s.calibration, s.options)
	if fault.CodeOf(err) == fault.File {
		return nil, fault.New(fault.File, "%s: %s", fault.Sentence(err), cure)
	}
	return m, err
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

// The kinds of files that are monitored.
const (
	predictionFiles = "predictions"
	recordFiles     = "audit records"
	replicaStates   = "states of servers"
)

// monitoredFiles is the one kind that all files are of.
func monitoredFiles(paths []string) (kind string, err error) {
	for i, path := range paths {
		if err := checkInput("FILE", path); err != nil {
			return "", err
		}
		found := monitoredFile(path)
		if i > 0 && found != kind {
			return "", usageError("%s has %s and %s %s: name files of one kind", paths[0], kind,
				path, found)
		}
		kind = found
	}
	return kind, nil
}

// monitoredFile is the kind of a file by its beginning.
func monitoredFile(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return predictionFiles // whoever reads it says so
	}
	defer file.Close()
	first := make([]byte, 64)
	n, _ := io.ReadFull(file, first)
	switch {
	case !bytes.HasPrefix(bytes.TrimSpace(first[:n]), []byte("{")):
		return predictionFiles
	case bytes.Contains(first, []byte(`"subject":`)):
		return replicaStates
	}
	return recordFiles
}

// watchFiles lets a monitor see all images of predictions or of audit records.
func watchFiles(c *cli.Context, began monitorStart, kind string) (outcome, error) {
	state := c.String("state")
	watching, err := began.open(state, "begin anew in another --state")
	if err != nil {
		return outcome{}, err
	}
	if paths := c.Args().Slice(); kind == recordFiles {
		err = watchRecords(watching, paths)
	} else {
		err = watchPredictions(watching, paths, began.router)
	}
	if err == nil {
		err = serving.SaveMonitor(state, watching)
	}
	if err != nil {
		return outcome{}, err
	}
	report := watching.Report()
	return outcome{report, reportText(report)}, checkAlarms(c, report.Watches)
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
func checkAlarms(c *cli.Context, watches []monitor.Watch) error {
	raised := alarms(watches)
	if !c.Bool("check") || len(raised) == 0 {
		return nil
	}
	return statusError{fmt.Errorf("--check: alarm of %s: calibrate the router again on images as "+
		"they come now, or find out what changed", strings.Join(raised, ", ")), exitCheck}
}

// alarms are the names of the watches that raised theirs.
func alarms(watches []monitor.Watch) (raised []string) {
	for _, w := range watches {
		if w.Alarm != nil {
			raised = append(raised, w.Name)
		}
	}
	return raised
}

func reportText(r monitor.Report) string {
	var b strings.Builder
	if r.Alarm != "" {
		fmt.Fprintf(&b, "ALARM: %s\n", r.Alarm)
	}
	fmt.Fprintf(&b, "promised: %s\n%d images, %d of them audited beside those that escalate, %d "+
		"audits with labels\n\n", r.Promise, r.Images, r.Audited, r.Labelled)
	writeWatches(&b, r.Watches)
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

func writeWatches(b *strings.Builder, watches []monitor.Watch) {
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, w := range watches {
		fmt.Fprintf(table, "%s\t%s\n", w.Name, w.Says)
	}
	table.Flush()
}
