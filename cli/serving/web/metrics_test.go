package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"agflow/cli/serving"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// scraped reads the value of a metric with its labels, as /metrics gives it.
func (s *site) scraped(t *testing.T, metric string) float64 {
	t.Helper()
	for line := range strings.Lines(string(s.get("/metrics").body)) {
		if text, found := strings.CutPrefix(strings.TrimSpace(line), metric+" "); found {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("/metrics has no %s", metric)
	return 0
}

func TestMetrics(t *testing.T) {
	s := newSite(t, nil)
	images := imagesOf(40, 1)
	s.isAnswer(t, s.post(inferPath, inferBody(images, "")), images)
	s.post(inferPath, "{").refused(t, 400)
	report := s.report()
	heavy, audited := 0, int(report.Audited)
	for _, a := range s.experts.expected(t, images) {
		if a.Expert == "heavy" {
			heavy++
		}
	}
	if heavy == 0 || heavy == 40 || audited == 0 {
		t.Fatalf("%d of 40 images escalate and %d are audited: they test nothing", heavy, audited)
	}
	router, watches := s.experts.router, report.Watches
	for metric, want := range map[string]float64{
		`agflow_requests_total{path="/v2/models/{name}/infer",status="200"}`: 1,
		`agflow_requests_total{path="/v2/models/{name}/infer",status="400"}`: 1,
		`agflow_request_seconds_count{path="/v2/models/{name}/infer"}`:       2,
		`agflow_refusals_total{reason="invalid"}`:                            1,
		`agflow_images_total`:                              40,
		`agflow_escalated_images_total`:                    float64(heavy),
		`agflow_audited_images_total`:                      float64(audited),
		`agflow_cost_total`:                                10 + float64(heavy+audited),
		`agflow_answer_seconds_count{expert="heavy"}`:      float64(heavy),
		`agflow_answer_seconds_count{expert="light"}`:      float64(40 - heavy),
		`agflow_batch_images_sum`:                          40,
		`agflow_queue_images`:                              0,
		`agflow_ready`:                                     1,
		`agflow_draining`:                                  0,
		`agflow_calibrated_escalation`:                     router.Escalation,
		`agflow_calibrated_cost`:                           router.Ledger.Charged,
		`agflow_monitor_promise_alarm`:                     0,
		`agflow_monitor_alarm{watch="accuracy"}`:           0,
		`agflow_monitor_evidence{watch="accuracy"}`:        watches[0].Evidence,
		`agflow_monitor_evidence_needed{watch="accuracy"}`: watches[0].Needs,
		`agflow_monitor_audit_share`:                       report.Share,
		`agflow_monitor_awaited_images`:                    float64(report.Awaited),
		`agflow_monitor_disagreement`:                      report.Disagreement.Value,
		`agflow_monitor_disagreement_high`:                 report.Disagreement.Interval[1],
		`agflow_model_info{model="linear",prior="max_probability",revision="5f3a",` +
			`runtime="go",verdict="PASS"}`: 1,
	} {
		if got := s.scraped(t, metric); got != want {
			t.Errorf("%s is %v, want %v", metric, got, want)
		}
	}
	again := func() (serving.Experts, error) { return newLinear(), nil }
	if err := s.service.Reload(again); err != nil {
		t.Fatal(err)
	}
	if got := s.scraped(t, `agflow_reloads_total{result="ok"}`); got != 1 {
		t.Errorf("%v reloads", got)
	}
	if text := string(s.get("/metrics").body); !strings.Contains(text, "agflow_build_info{") ||
		!strings.Contains(text, `version="1.2.3"`) || !strings.Contains(text, "go_goroutines") {
		t.Error("/metrics lacks what was built, or Go's own metrics")
	}
}

func TestMetricsFollowPrometheusHabits(t *testing.T) {
	metrics := NewMetrics()
	metrics.Batch(serving.Pass{Images: 2, Escalated: 1, Light: time.Second, Heavy: time.Second})
	metrics.Answered("light", 0.25, time.Second)
	metrics.Refused("busy")
	metrics.Reloaded(false)
	metrics.request("/metrics", 200, time.Second)
	problems, err := testutil.GatherAndLint(metrics.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// What clients make up must not make metrics.
func TestMetricsStayFew(t *testing.T) {
	s := newSite(t, nil)
	before := 0
	for i := range 60 {
		s.get(fmt.Sprintf("/nowhere/%d", i))
		s.get(fmt.Sprintf("/v2/models/model%d", i))
		s.do(fmt.Sprintf("METHOD%d", i), "/v2", nil)
		if i == 0 {
			before = strings.Count(string(s.get("/metrics").body), "agflow_requests_total{")
		}
	}
	text := string(s.get("/metrics").body)
	if got := strings.Count(text, "agflow_requests_total{"); got > before+1 { // its own
		t.Errorf("%d series of requests, before %d", got, before)
	}
	if !strings.Contains(text, `agflow_requests_total{path="other",status="404"} 60`) {
		t.Error("unknown paths are not one series")
	}
}

func TestOneLineARequest(t *testing.T) {
	var log bytes.Buffer
	s := newSite(t, func(o *Options, _ *serving.Options, _ *linear) {
		o.Log = slog.New(slog.NewJSONHandler(&log, nil))
	})
	images := imagesOf(8, 1)
	s.post(inferPath, inferBody(images, `,"id":"mine\n{\"level\":\"ERROR\"}"`))
	s.post("/v1/classify?top=1", string(picture(1, 8, 8)))
	s.get("/v2/health/live")
	s.get("/nowhere%0A" + strings.Repeat("x", 1000))
	s.Close() // all are logged
	var got []map[string]any
	for line := range strings.Lines(log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		got = append(got, fields)
	}
	if len(got) != 3 { // probes are for the level debug
		t.Fatalf("got %d lines: %s", len(got), log.String())
	}
	first := got[0]
	if first["method"] != "POST" || first["path"] != inferPath || first["status"] != 200.0 ||
		first["images"] != 8.0 || first["id"] != "mine\n{\"level\":\"ERROR\"}" ||
		first["light"].(float64)+first["heavy"].(float64) != 8 || !(first["ms"].(float64) > 0) {
		t.Errorf("got %v", first)
	}
	if got[1]["status"] != 200.0 || got[1]["images"] != 1.0 || got[1]["id"] == "" ||
		strings.Contains(log.String(), "top") { // nothing of the query
		t.Errorf("got %v", got[1])
	}
	if last := got[2]; last["status"] != 404.0 || len(last["path"].(string)) > 110 {
		t.Errorf("got %v", last)
	}
}

func TestLiveNumbers(t *testing.T) {
	tally, now := &tally{}, time.Now()
	if liveOf(nil, now) != nil {
		t.Error("numbers of nothing")
	}
	for i := range maxRecent + 1000 { // the first 1,000 leave the ring
		a := answered{"light", 0.25, 10 * time.Millisecond, now.Add(-5 * time.Second)}
		if i < 1000 {
			a = answered{"ensemble", 100, time.Hour, now.Add(-time.Hour)}
		} else if i%4 == 0 {
			a.expert, a.cost, a.waited = "heavy", 1.25, 50*time.Millisecond
		}
		tally.answer(a)
	}
	total, latest := tally.read()
	if want := 100_000 + maxRecent*0.5; total.Cost != want {
		t.Errorf("cost %v, want %v", total.Cost, want)
	}
	got := liveOf(latest, now)
	if got.Images != maxRecent || got.Escalation != 0.25 || math.Abs(got.Cost-0.5) > 1e-9 ||
		math.Abs(got.Seconds-5) > 1e-9 || got.ImagesPerSecond != maxRecent/5.0 ||
		got.Milliseconds["all"] != (quantiles{10, 50}) ||
		got.Milliseconds["light"] != (quantiles{10, 10}) || len(got.Milliseconds) != 3 {
		t.Errorf("got %+v", got)
	}
	tally.batch(serving.Pass{
		Images: 100, Escalated: 20, Audited: 5, Light: time.Second, Heavy: 2 * time.Second,
	}, now)
	total, _ = tally.read()
	// 3 s for 100 images, where the heavy expert takes 8 s
	if cost, known := total.costByClock(); !known || math.Abs(cost-3.0/8) > 1e-12 {
		t.Errorf("cost by the clock is %v", cost)
	}
}

// The README lists the metrics that there are, and no others.
func TestTheReadmeNamesTheMetrics(t *testing.T) {
	s := newSite(t, func(_ *Options, _ *serving.Options, l *linear) { l.audits = 1 })
	ids, _ := outputOf[string](t, s.post(inferPath, inferBody(imagesOf(40, 1), "")), "id")
	s.post("/v1/labels", fmt.Sprintf(`{"id":%q,"label":0}`, ids[0])).read(t, &struct{}{})
	s.post(inferPath, "{").refused(t, 400)
	none := func() (serving.Experts, error) { return nil, errExperts }
	if err := s.service.Reload(none); err == nil {
		t.Fatal("a reload without experts")
	}
	content, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(content)
	ends := regexp.MustCompile("`\\.\\.\\.(_\\w+)").FindAllStringSubmatch(readme, -1)
	there := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^# TYPE (agflow_\w+)`).
		FindAllStringSubmatch(string(s.get("/metrics").body), -1) {
		name := found[1]
		there[name] = true
		if !strings.Contains(readme, name) && !slices.ContainsFunc(ends, func(end []string) bool {
			return strings.HasSuffix(name, end[1])
		}) {
			t.Errorf("the README lacks %s", name)
		}
	}
	for _, found := range regexp.MustCompile("`(agflow_\\w+)").FindAllStringSubmatch(readme, -1) {
		if !there[found[1]] {
			t.Errorf("there is no %s, which the README has", found[1])
		}
	}
}
