package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"agflow/bridge/tables"
	"agflow/core/routing"
	"agflow/core/routing/monitor"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// served writes n predictions in which every lost-th confident image is lost, 0 for none, and
// every fourth image escalates.
func served(t *testing.T, path string, n, lost int) {
	t.Helper()
	p := tables.Predictions{
		Temperature: 1, Cost: routing.Cost{Light: 30, Heavy: 100, Unit: routing.MACs},
		Priors: []routing.Prior{{Name: "max_probability"}},
	}
	for i := range n {
		light, prior := int64(0), float32(0.99)
		if i%4 == 0 {
			light, prior = 1, 0.3
		} else if lost > 0 && i%lost == 1 {
			light = 1
		}
		p.Label, p.Heavy = append(p.Label, 0), append(p.Heavy, 0)
		p.Light, p.Priors[0].Values = append(p.Light, light), append(p.Priors[0].Values, prior)
	}
	write(t, path, tables.PredictionsToRecord(memory.DefaultAllocator, p))
}

// The promise over files of predictions: kept, then broken, with a state between them.
func TestMonitorPredictions(t *testing.T) {
	t.Chdir(t.TempDir())
	served(t, "held-out.arrow", 4000, 0)
	served(t, "good.arrow", 3000, 0)
	served(t, "bad.arrow", 1000, 20)
	must(t, "route", "--predictions", "held-out.arrow")
	command := []string{"monitor", "--router", "router.json", "--calibration", "held-out.arrow"}
	out := must(t, append(command, "--check", "--state", "good.json", "good.arrow")...)
	contains(t, out, "promised: accuracy(cascade) >= accuracy(heavy) - 0.005\n3000 images",
		"accuracy    no alarm", "prior       no alarm", "25.00 (", "% of the last 3000 images")

	out, complaint, status := agflow(append(command, "--check", "good.arrow", "bad.arrow")...)
	if status != exitCheck || !strings.Contains(complaint, "alarm of accuracy, agreement:") {
		t.Errorf("status %d, said %q", status, complaint)
	}
	contains(t, out, "ALARM: the promise of 0.5 points no longer holds: on the last 1000 labelled "+
		"audits the cascade loses 5.00 (", "agreement   the cascade's answers differ from the")
	whole := decode[monitor.Report](t, append(command, "good.arrow", "bad.arrow")...)
	if w := whole.Watches[0]; w.Alarm == nil || w.Alarm.Image < 3000 || w.Alarm.Image > 3600 {
		t.Errorf("got %+v", w)
	}
	continued := decode[monitor.Report](t, append(command, "--state", "good.json", "bad.arrow")...)
	if fmt.Sprint(continued) == fmt.Sprint(decode[monitor.Report](t, append(command,
		"bad.arrow")...)) || continued.Watches[0].Evidence != whole.Watches[0].Evidence {
		t.Errorf("continued: %+v\nat once: %+v", continued, whole)
	}
	alone := must(t, "monitor", "--router", "router.json", "good.arrow")
	contains(t, alone, "agreement   off: the router does not know how often")
	routerFile(t, "other.json", routing.HeavyAnswers, 0)
	refuses(t, "monitor", map[string]refusal{
		"good.arrow":                       {exitUsage, "--router is missing"},
		"--router router.json":             {exitUsage, "needs at least one FILE"},
		"--router router.json none.arrow":  {exitFailed, "there is no such file"},
		"--router router.json router.json": {exitBadData, "router.json, line 1: it is not a JSON"},
		"--router router.json --calibration good.arrow good.arrow": {exitUsage,
			"good.arrow: of 3000 images"},
		"--router router.json --level 1 good.arrow": {exitUsage, "--level is 1"},
		"--router other.json --state good.json good.arrow": {exitBadData,
			"good.json: the state of the monitor can't be read: it is of the router"},
		"--router router.json --calibration held-out.arrow --state router.json good.arrow": {
			exitBadData, "router.json: the state of the monitor can't be read: its format is 4"},
		"--router router.json good.arrow router.json": {exitUsage,
			"good.arrow has predictions and router.json audit records: name files of one kind"},
	})
}

// recordLines are audit records of images a second apart, each second image's label late.
func recordLines(t *testing.T, name string, first time.Time, n, lost int) (lines []string) {
	t.Helper()
	zero, heavy := 0, 0
	for i := range n {
		at := first.Add(time.Duration(2*i) * time.Second)
		image := monitor.Image{ID: fmt.Sprintf("%s-%d", name, i), Prior: 0.95,
			Time: at.Format(time.RFC3339), Draw: monitor.Everything, Heavy: &heavy}
		if i%4 == 0 {
			image.Prior, image.Escalated = 0.3, true
		} else if i%lost == 1 {
			image.Answer = 1
		}
		records := []monitor.Record{{Image: &image}}
		if i%2 == 0 {
			image.Label = &zero
		} else {
			records = append(records, monitor.Record{Late: &monitor.Late{ID: image.ID,
				Time: at.Add(time.Second).Format(time.RFC3339)}})
		}
		for _, r := range records {
			line, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, string(line))
		}
	}
	return lines
}

// Records of two replicas are merged by their times, whatever file is named first.
func TestMonitorRecords(t *testing.T) {
	t.Chdir(t.TempDir())
	served(t, "held-out.arrow", 4000, 0)
	must(t, "route", "--predictions", "held-out.arrow")
	start := time.Date(2025, 1, 31, 12, 0, 0, 0, time.UTC)
	one := recordLines(t, "one", start, 600, 20)
	two := recordLines(t, "two", start.Add(time.Second/2), 600, 20)
	files := map[string]string{
		"one.jsonl": strings.Join(one, "\n") + "\n\n", "two.jsonl": strings.Join(two, "\n"),
		"cut.jsonl":   strings.Join(one[:3], "\n") + "\n" + one[3][:20],
		"other.jsonl": strings.Replace(one[0], `"escalated":true`, `"escalated":false`, 1),
		"time.jsonl":  strings.Replace(one[0], "2025-01-31T", "31 January ", 1),
	}
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	command := []string{"monitor", "--router", "router.json"}
	a := decode[monitor.Report](t, append(command, "one.jsonl", "two.jsonl")...)
	b := decode[monitor.Report](t, append(command, "two.jsonl", "one.jsonl")...)
	if a.Images != 1200 || a.Labelled != 1200 || a.Awaited != 0 ||
		a.Watches[0].Evidence != b.Watches[0].Evidence {
		t.Errorf("got %+v and %+v", a, b)
	}
	if w := a.Watches[0]; w.Alarm == nil || !strings.HasPrefix(w.Alarm.Time, "2025-01-31T12:") ||
		!strings.Contains(w.Says, w.Alarm.Time) {
		t.Errorf("got %+v", w)
	}
	refuses(t, "monitor --router router.json", map[string]refusal{
		"cut.jsonl":   {exitBadData, "cut.jsonl, line 4: it is not a JSON object"},
		"time.jsonl":  {exitBadData, "time.jsonl, line 1: time is"},
		"other.jsonl": {exitBadData, "other.jsonl, line 1: image \"one-0\" has the prior 0.3"},
	})
}

// readmeCommand is the one line of a README that begins so, without the prompt's backslashes.
func readmeCommand(t *testing.T, readme, beginning string) []string {
	t.Helper()
	content, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(content), "\\\n", " ")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, beginning) {
			return strings.Fields(line)[1:]
		}
	}
	t.Fatalf("%s has no line that begins with %q", readme, beginning)
	return nil
}

// The evidence of replicas is added up from their states, by the command of the guide.
func TestMonitorReplicas(t *testing.T) {
	command := readmeCommand(t, "serving/README.md", "agflow monitor --check")
	t.Chdir(t.TempDir())
	if err := os.Mkdir("photos", 0o777); err != nil {
		t.Fatal(err)
	}
	served(t, "photos/predictions-threshold.arrow", 4000, 0)
	served(t, "good.arrow", 3000, 0)
	served(t, "bad.arrow", 3000, 20)
	must(t, "route", "--predictions", "photos/predictions-threshold.arrow",
		"--output", "photos/router.json")
	cascade := strings.Fields("--router photos/router.json --calibration " +
		"photos/predictions-threshold.arrow")
	monitored := func(arguments ...string) monitor.Report {
		return decode[monitor.Report](t, append(append([]string{"monitor"}, cascade...),
			arguments...)...)
	}
	replicas := []monitor.Report{
		monitored("--state", "1.state", "good.arrow"),
		monitored("--state", "2.state", "bad.arrow"),
		monitored("--state", "3.state", "good.arrow"),
	}
	out, complaint, status := agflow(command...)
	if status != exitCheck || !strings.Contains(complaint, "alarm of accuracy, agreement:") {
		t.Errorf("status %d, said %q", status, complaint)
	}
	contains(t, out, "ALARM of accuracy, agreement\npromised: accuracy(cascade) >= "+
		"accuracy(heavy) - 0.005\n9000 images of 3 replicas", "accuracy    alarm: mean evidence ",
		"prior       no alarm: mean evidence ", "1 of 3 replicas raised an alarm of their own")
	averaged := append([]string{"monitor"}, cascade...)
	got := decode[monitor.Replicas](t, append(averaged, "1.state", "2.state", "3.state")...)
	for k, w := range got.Watches {
		mean := 0.0
		for _, r := range replicas {
			mean += r.Watches[k].Evidence / 3
		}
		if math.Abs(w.Evidence-mean) > 1e-12*mean || (w.Alarm != nil) != (mean >= w.Needs) {
			t.Errorf("%s: got %+v, the mean is %v", w.Name, w, mean)
		}
	}
	quiet := must(t, append(averaged, "--check", "1.state", "3.state")...)
	contains(t, quiet, "promised:", "accuracy    no alarm")

	must(t, "route", "--predictions", "photos/predictions-threshold.arrow", "--tolerance", "0.02",
		"--output", "other.json")
	must(t, "monitor", "--router", "other.json", "--state", "other.state", "good.arrow")
	must(t, append(averaged, "--level", "0.01", "--state", "strict.state", "good.arrow")...)
	level := "it is of watches at level 0.01, and level 0.05 was asked for"
	cure := ": give the router, the calibration and the level of its server"
	refuses(t, strings.Join(averaged, " "), map[string]refusal{
		"1.state other.state": {exitBadData,
			"other.state: the state of the monitor can't be read: it is of the router"},
		"1.state strict.state":       {exitBadData, level + cure},
		"1.state good.arrow":         {exitUsage, "1.state has states of servers and good.a"},
		"--state new.state 1.state":  {exitUsage, "--state is new.state, and the evidence of"},
		"1.state photos/predictions": {exitFailed, "there is no such file"},
		"--level 0.1 1.state":        {exitBadData, "it is of watches at level 0.05"},
	})
	refuses(t, "monitor --router photos/router.json", map[string]refusal{
		"1.state 2.state": {exitBadData, "it is of the calibration predictions"},
	})
}
