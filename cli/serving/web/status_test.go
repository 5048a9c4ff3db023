package web

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"agflow/cli/serving"
	"agflow/core/routing/monitor"
)

func TestStatus(t *testing.T) {
	s := newSite(t, nil)
	var got statusReport
	a := s.get("/v1/status")
	a.read(t, &got)
	if got.Live != nil || got.CostByClock != nil ||
		!strings.Contains(string(a.body), `"live":null`) {
		t.Errorf("numbers before the first image: %s", a.body)
	}
	images := imagesOf(40, 1)
	s.isAnswer(t, s.post(inferPath, inferBody(images, "")), images)
	got = statusReport{}
	s.get("/v1/status").read(t, &got)
	router := s.experts.router
	if got.Model != (statusModel{"linear", "5f3a", "go", [3]int{3, 8, 8}, 5, 16}) ||
		got.Promise.Escalation != router.Escalation || got.Promise.Limit != 0.02 ||
		got.Promise.EscalationInterval != router.Point.EscalationInterval ||
		got.Promise.Cost != router.Ledger.Charged || got.Promise.CostUnit != "MACs" ||
		got.Promise.LightCost != 1 || got.Promise.HeavyCost != 4 {
		t.Errorf("got %+v", got)
	}
	heavy := 0
	for _, a := range s.experts.expected(t, images) {
		if a.Expert == "heavy" {
			heavy++
		}
	}
	if got.Live.Images != 40 || got.Live.Escalation != float64(heavy)/40 || !got.Ready ||
		got.Total.Images != 40 || got.Total.Escalated != int64(heavy) || got.CostByClock == nil ||
		!(got.Live.Milliseconds["all"].P99 > 0) || !(got.Live.ImagesPerSecond > 0) {
		t.Errorf("got %+v", got)
	}
	var report monitor.Report
	s.get("/v1/monitor").read(t, &report)
	if !reflect.DeepEqual(report, s.report()) || report.Images != 40 {
		t.Errorf("got %+v", report)
	}
	unwatched := newSite(t, func(_ *Options, so *serving.Options, _ *linear) { so.Watch = nil })
	unwatched.get("/v1/monitor").refused(t, http.StatusNotFound, "is not watched")
}

// The page needs nothing from elsewhere, and its policy lets nothing else in.
func TestThePage(t *testing.T) {
	s := newSite(t, nil)
	a := s.get("/")
	page := string(a.body)
	if got := a.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("got %q", got)
	}
	foreign := regexp.MustCompile(`(?i)https?://|\bsrc=|@import|url\(|\son\w+=|\sstyle=|innerHTML`)
	if found := foreign.FindString(page); found != "" {
		t.Errorf("the page has %q", found)
	}
	policy := a.Header.Get("Content-Security-Policy")
	for _, tag := range []string{"style", "script"} {
		_, rest, _ := strings.Cut(page, "<"+tag+">")
		content, _, found := strings.Cut(rest, "</"+tag+">")
		sum := sha256.Sum256([]byte(content))
		want := tag + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
		if !found || !strings.Contains(policy, want) {
			t.Errorf("%q lacks %q", policy, want)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none'; connect-src 'self'") ||
		strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
}

// chromium is a headless browser; the test is skipped where there is none.
func chromium(t *testing.T, options ...string) string {
	t.Helper()
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium on the PATH; Debian's package is chromium")
	}
	profile := t.TempDir()
	done := exec.Command(browser, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--enable-logging=stderr", "--v=0", "--user-data-dir=" + profile,
		"--virtual-time-budget=5000",
	}, options...)...)
	var messages strings.Builder
	done.Stderr = &messages
	output, err := done.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, messages.String())
	}
	// what the page's script or its policy complains of
	if regexp.MustCompile(`CONSOLE.*(rror|efused|iolat)`).MatchString(messages.String()) {
		t.Errorf("the browser says: %s", messages.String())
	}
	return string(output)
}

// The page in a real browser: live numbers, beside the calibrated ones.
func TestThePageInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds; run without -short")
	}
	s := newSite(t, nil)
	images := imagesOf(600, 1)
	for at := 0; at < 600; at += 40 {
		part := images[at*size : (at+40)*size]
		s.isAnswer(t, s.post(inferPath, inferBody(part, "")), part)
	}
	dom := chromium(t, "--dump-dom", s.URL+"/")
	_, text, _ := strings.Cut(dom, "</style>")
	text, _, _ = strings.Cut(text, "<script>")
	text = html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(text, "|"))
	var status statusReport
	s.get("/v1/status").read(t, &status)
	share, _ := json.Marshal(float64(int(status.Live.Escalation*1000+0.5)) / 10)
	for _, want := range []string{
		"|linear|", "|ready|", "revision 5f3a, go, images 3 × 8 × 8", "|as calibrated|",
		"|a gain, ",
		"|" + string(share), "calibrated ", "on 2,000 images",
		s.report().Promise, "|alarm||none|", "|audited now||25.0 %",
		"|since the start||600|", "|verdict||PASS|",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q: %s", want, text)
		}
	}
	if folder := os.Getenv("AGFLOW_SCREENSHOTS"); folder != "" {
		chromium(t, "--window-size=1100,900",
			"--screenshot="+filepath.Join(folder, "status.png"), s.URL+"/")
	}
}

// drifted is a site whose experts have come to disagree, with labels that say who is right.
func drifted(t *testing.T) *site {
	t.Helper()
	s := newSite(t, func(_ *Options, so *serving.Options, l *linear) {
		l.audits, so.OnAlarm = 1, serving.Unready
		l.heavy = slices.Clone(l.heavy)
		for i := range l.heavy {
			l.heavy[i] *= -1
		}
	})
	images := imagesOf(300, 1)
	for at := 0; at < 300; at += 50 {
		part := images[at*size : (at+50)*size]
		ids, _ := outputOf[string](t, s.post(inferPath, inferBody(part, "")), "id")
		var labels []label
		for i, id := range ids {
			heavy := logits(s.experts.heavy, part[i*size:(i+1)*size])
			labels = append(labels, label{id, greatest(heavy, 1)[0]})
		}
		text, _ := json.Marshal(labels)
		s.post("/v1/labels", string(text)).read(t, &struct{}{})
	}
	return s
}

func TestAnAlarm(t *testing.T) {
	s := drifted(t)
	const says = "the promise of 2 points no longer holds"
	if got := s.report().Alarm; !strings.Contains(got, says) {
		t.Fatalf("the monitor says %q", got)
	}
	s.get("/v2/health/ready").refused(t, http.StatusServiceUnavailable, says)
	if s.scraped(t, "agflow_monitor_promise_alarm") != 1 || s.scraped(t, "agflow_ready") != 0 ||
		s.scraped(t, `agflow_monitor_alarm{watch="accuracy"}`) != 1 {
		t.Error("the metrics have no alarm")
	}
	if testing.Short() {
		return
	}
	if dom := chromium(t, "--dump-dom", s.URL+"/"); !strings.Contains(dom, ">alarm</span>") ||
		!strings.Contains(dom, says) {
		t.Errorf("the page has no alarm: %s", dom)
	}
}

// A page that needs a token asks for it.
func TestThePageAsksForTheToken(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes seconds; run without -short")
	}
	s := newSite(t, func(o *Options, _ *serving.Options, _ *linear) { o.Token = "s3cret" })
	dom := chromium(t, "--dump-dom", s.URL+"/")
	if !strings.Contains(dom, "wants a token") || strings.Contains(dom, `class="wide" hidden`) {
		t.Errorf("got %s", dom)
	}
}
