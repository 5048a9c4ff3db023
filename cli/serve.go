package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"agflow/bridge/ipcfile"
	"agflow/cli/serving"
	"agflow/cli/serving/web"
	"agflow/core/routing"
	"agflow/core/routing/monitor"

	"github.com/urfave/cli/v2"
)

func serveCommand() *cli.Command {
	step := of("serve")
	return command(cli.Command{
		Name:     "serve",
		Usage:    "answer images over HTTP by a cascade",
		Category: modelSteps,
		Description: "Speaks the Open Inference Protocol v2 (KServe, Triton) and takes image " +
			"files at /v1/classify; / shows what happens, /metrics is for Prometheus. SIGTERM " +
			"answers what was accepted and ends, SIGHUP loads the folder again without losing a " +
			"request.",
		UsageText: "agflow serve --cascade cascade",
		Flags: slices.Concat([]cli.Flag{
			need(checked(place("cascade", "`FOLDER` of a cascade, or of an exported one, which "+
				"needs no torch"), checkServed)),
		}, inputs(
			setting("own-model", "`MODULE:FUNCTION` that makes a model of your own class, which "+
				"no folder can"),
		), method(
			atLeast(1, step.number("max-batch", "`N` images a batch")),
			within(0, 60_000, true, step.fraction("max-wait-ms",
				"`MILLISECONDS` that an image waits for others to form a batch")),
			atLeast(1, step.number("max-queue",
				"`N` images that may wait; further ones are refused with status 429")),
		), grouped(networkGroup, []cli.Flag{
			step.text("host", "`ADDRESS` to listen on; 0.0.0.0 is every one of this machine"),
			atLeast(0, step.number("port", "`PORT` to listen on; 0 takes a free one")),
			inputFile(setting("tls-certificate", "PEM `FILE` of the certificate chain")),
			inputFile(setting("tls-key", "PEM `FILE` of the certificate's key")),
			inputFile(setting("token-file", "`FILE` of a token that clients must bear")),
			within(0, 86_400, true, step.fraction("drain-seconds", "`SECONDS` at the end in which "+
				"the server is not ready but answers, until no balancer sends to it any more")),
			within(0, 86_400, true, step.fraction("grace-seconds",
				"`SECONDS` that accepted requests get to be answered behind that")),
		}), grouped(watchGroup, []cli.Flag{
			within(0, 1, true, of("monitor").fraction("share", "`SHARE` of the images that the "+
				"heavy expert answers besides, to watch the promise while all is well; 0 audits "+
				"none")),
			within(0, 1, true, of("monitor").fraction("raised-share",
				"`SHARE` while recent audits look worse than they should")),
			within(0, 1, false, of("monitor").fraction("level",
				"`SHARE` of servers that may raise a false alarm, ever")),
			inputFile(place("calibration", "predictions `FILE` that route read (default: "+
				calibratingFile+" of the cascade's folder): without it the agreement is not "+
				"watched, and priors are compared with those before alone")),
			place("state", "`FILE` of the evidence, which is continued at the next start"),
			place("records", "`FILE` that audit records are appended to, for agflow monitor"),
			step.text("on-alarm", "`ACTION` where the promise no longer holds: log; escalate, "+
				"which sends every image to the heavy expert; or unready, which refuses readiness"),
		}), grouped(computingGroup, []cli.Flag{
			aDevice(common.text("device",
				"torch `DEVICE` for the models: cpu, cuda or cuda:1")),
			atLeast(1, optional("threads", "the runtime's", "compute with `N` threads")),
		})),
	}, serveCascade)
}

// checkServed refuses what is no folder of a cascade.
func checkServed(_ *cli.Context, name, folder string) error {
	if err := checkFolder("--"+name, folder); err != nil {
		return err
	}
	for _, file := range []string{"cascade.json", "export.json"} {
		if _, err := os.Stat(filepath.Join(folder, file)); err == nil {
			return nil
		}
	}
	return usageError("--%s is %s, which has neither cascade.json nor export.json: expected the "+
		"folder of a cascade, which agflow run and agflow design write, or of an exported one",
		name, folder)
}

// calibratingFile has the predictions that calibrated a router, in the folder of its cascade.
const calibratingFile = "predictions-threshold.arrow"

// servedCalibration reads what calibrated the router of a served cascade, nil where that is not at
// hand.
func servedCalibration(c *cli.Context, router routing.Router) (*monitor.Calibration, error) {
	path := c.String("calibration")
	if path == "" {
		path = filepath.Join(c.String("cascade"), calibratingFile)
		if _, err := os.Stat(path); err != nil {
			return nil, nil
		}
	}
	return readCalibration(path, router)
}

// serveOptions are what a server is started with.
type serveOptions struct {
	address          string // host:port
	certificate, key string // files; "" for plain HTTP
	drain, grace     time.Duration
	service          serving.Options
	web              web.Options
	loading          string // JSON, as agflow.serving.open_cascade takes it
	announce         func(url string)
}

func serveOptionsOf(c *cli.Context) (o serveOptions, err error) {
	o = serveOptions{
		address:     net.JoinHostPort(c.String("host"), strconv.Itoa(c.Int("port"))),
		certificate: c.String("tls-certificate"), key: c.String("tls-key"),
		drain: seconds(c.Float64("drain-seconds")), grace: seconds(c.Float64("grace-seconds")),
		service: serving.Options{
			MaxBatch: c.Int("max-batch"), MaxQueue: c.Int("max-queue"),
			MaxWait: seconds(c.Float64("max-wait-ms") / 1000),
			OnAlarm: serving.OnAlarm(c.String("on-alarm")), Log: serveLog(c),
		},
		announce: func(url string) { announce(c, url) },
	}
	o.service.Watch = func(m serving.Model) (serving.Watch, error) {
		return serving.NewWatch(m, serving.WatchOptions{
			Options: monitor.Options{
				Level: c.Float64("level"), Share: c.Float64("share"),
				RaisedShare: max(c.Float64("share"), c.Float64("raised-share")),
				Seed:        uint64(time.Now().UnixNano()), // what is audited can't be foreseen
			},
			State: c.String("state"), Records: c.String("records"), Log: o.service.Log,
			Calibration: func(m serving.Model) (*monitor.Calibration, error) {
				return servedCalibration(c, m.Router)
			},
		})
	}
	o.web = web.Options{Version: ipcfile.Version, Limits: web.StandardLimits, Log: o.service.Log}
	switch {
	case (o.certificate == "") != (o.key == ""):
		return o, usageError("--tls-certificate and --tls-key belong together: give both or none")
	case o.service.MaxQueue < o.service.MaxBatch:
		return o, usageError("--max-queue is %d and --max-batch %d: the queue holds at least one "+
			"batch", o.service.MaxQueue, o.service.MaxBatch)
	}
	if file := c.String("token-file"); file != "" {
		if o.web.Token, err = tokenOf(file); err != nil {
			return o, err
		}
	}
	folder, err := filepath.Abs(c.String("cascade"))
	if err != nil {
		return o, failure("the working directory can't be read: %w", err)
	}
	loading := map[string]any{
		"folder": folder, "device": c.String("device"), "max_batch": c.Int("max-batch"),
		"threads": nil, "model": nil,
	}
	if c.IsSet("threads") {
		loading["threads"] = c.Int("threads")
	}
	if model := c.String("own-model"); model != "" {
		loading["model"] = model
	}
	encoded, err := json.Marshal(loading)
	o.loading = string(encoded)
	return o, err
}

// serveLog writes a line an event to stderr: text for people, JSON with --json.
func serveLog(c *cli.Context) *slog.Logger {
	if asked(c, "json") {
		return slog.New(slog.NewJSONHandler(c.App.ErrWriter, nil))
	}
	return slog.New(slog.NewTextHandler(c.App.ErrWriter, nil))
}

// announce prints where the server listens, once it answers.
func announce(c *cli.Context, url string) {
	if asked(c, "json") {
		line, _ := json.Marshal(map[string]any{"url": url, "pid": os.Getpid()})
		fmt.Fprintln(c.App.Writer, string(line))
		return
	}
	fmt.Fprintf(c.App.Writer, "serving at %s\n", url)
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// maxToken is the greatest size of a token's file, in bytes: no header holds more.
const maxToken = 64 << 10

// tokenOf is the token in a file, without the blanks and line ends around it.
func tokenOf(file string) (string, error) {
	content, err := ipcfile.ReadBytes(file, maxToken)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(content))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", usageError("--token-file is %s, which holds no token: expected one word", file)
	}
	return token, nil
}
