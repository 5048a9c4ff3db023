package serving

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"agflow/core/routing"
	"agflow/core/routing/monitor"
)

// calibrated is a router as a calibration makes it, for experts of which the light one is right
// where it is confident.
func calibrated(t *testing.T) routing.Router {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 1))
	n := 4000
	right := make([]bool, n)
	s := routing.Samples{
		Labels: make([]int64, n), Heavy: make([]int64, n),
		Priors: []routing.Prior{{Name: routing.MaxProbability, Values: make([]float32, n)}},
		Cost:   routing.Cost{Light: 1, Heavy: 4, Unit: routing.MACs},
	}
	for i := range n {
		s.Labels[i], s.Heavy[i] = int64(i%classes), int64(i%classes)
		confidence := random.Float32()
		s.Priors[0].Values[i] = confidence
		right[i] = confidence >= 0.5 || random.IntN(3) > 0
	}
	s.LightCorrect = routing.BitsOf(n, func(i int) bool { return right[i] })
	s.HeavyCorrect = routing.BitsOf(n, func(int) bool { return true })
	tolerance := 0.01
	router, err := routing.NewRouter(s, routing.Request{Tolerance: &tolerance, Confidence: 0.95})
	if err != nil {
		t.Fatal(err)
	}
	return router
}

func watching(t *testing.T, o WatchOptions) Options {
	t.Helper()
	so := options()
	o.Log = so.Log
	so.Watch = func(m Model) (Watch, error) { return NewWatch(m, o) }
	return so
}

func answerSome(t *testing.T, s *Service, seed uint64, n int) (answers []Answer) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	for range n {
		got, err := ask(context.Background(), s, someImage(random))
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, got...)
	}
	return answers
}

func reportOf(s *Service) monitor.Report { return s.State().Monitor.(monitor.Report) }

func TestEvidenceSurvivesTheProcess(t *testing.T) {
	folder := t.TempDir()
	o := WatchOptions{
		Options: monitor.DefaultOptions(), State: filepath.Join(folder, "state.json"),
		Records: filepath.Join(folder, "records.jsonl"),
	}
	o.Share, o.RaisedShare = 0.5, 0.5
	router := calibrated(t)
	var audited, before monitor.Report
	var waiting []Answer
	for life := range 3 {
		s, _ := serve(t, &linear{gain: 1, router: router}, watching(t, o))
		if found := reportOf(s); life > 0 && (found.Images != before.Images ||
			!slices.Equal(evidence(found), evidence(before)) || found.Labelled != before.Labelled) {
			t.Errorf("life %d begins with %+v, the one before ended with %+v", life, found, before)
		}
		for _, a := range waiting { // labels come in the next life, too
			if err := s.Label(a.ID, a.Class); err != nil && err != ErrUnknownID {
				t.Error(err)
			}
		}
		waiting = answerSome(t, s, uint64(life), 100)
		before = reportOf(s)
		s.Close()
	}
	audited = before
	if audited.Images != 300 || audited.Labelled == 0 || audited.Audited == 0 {
		t.Errorf("%+v", audited)
	}
	images, labels := readRecords(t, o.Records)
	if int64(labels) != audited.Labelled || images < int(audited.Audited) {
		t.Errorf("%d and %d records, want those of %+v", images, labels, audited)
	}
}

func evidence(r monitor.Report) (found []float64) {
	for _, w := range r.Watches {
		found = append(found, w.Evidence)
	}
	return found
}

func readRecords(t *testing.T, path string) (images, labels int) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		r, err := monitor.ParseRecord(lines.Bytes())
		switch {
		case err != nil:
			t.Fatal(err)
		case r.Image != nil:
			images++
		default:
			labels++
		}
	}
	return images, labels
}

func TestStateOfAnotherRouterIsKeptAside(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	o := WatchOptions{Options: monitor.DefaultOptions(), State: state}
	router := calibrated(t)
	s, _ := serve(t, &linear{gain: 1, router: router}, watching(t, o))
	answerSome(t, s, 1, 30)
	other := router
	other.Threshold.Threshold *= 0.9
	err := s.Reload(func() (Experts, error) { return &linear{gain: 2, router: other}, nil })
	if found := reportOf(s); err != nil || found.Images != 0 {
		t.Error(err, found)
	}
	answerSome(t, s, 2, 20)
	s.Close()
	if _, err := os.Stat(state + ".before"); err != nil {
		t.Error(err)
	}
	s, _ = serve(t, &linear{gain: 2, router: other}, watching(t, o))
	if found := reportOf(s); found.Images != 20 {
		t.Errorf("%+v", found)
	}
	s.Close()
}

func TestPlacesOfEvidenceAreTriedAtTheStart(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "absent", "file")
	for name, o := range map[string]WatchOptions{
		"state": {State: nowhere}, "records": {Records: nowhere}, "share": {},
	} {
		o.Options = monitor.DefaultOptions()
		if name == "share" {
			o.Share = 2
		}
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
		experts := &linear{gain: 1, router: calibrated(t)}
		so := options()
		so.Watch = func(m Model) (Watch, error) { return NewWatch(m, o) }
		if _, err := NewService(experts, so, &counted{}); err == nil || !experts.closed.Load() ||
			!strings.Contains(err.Error(), name) && !strings.Contains(err.Error(), "absent") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLabelsReachTheMonitor(t *testing.T) {
	o := WatchOptions{Options: monitor.DefaultOptions()}
	o.Share, o.RaisedShare = 1, 1
	s, _ := serve(t, &linear{gain: 1, router: calibrated(t)}, watching(t, o))
	defer s.Close()
	answers := answerSome(t, s, 1, 50)
	if err := s.Label(answers[0].ID, answers[0].Class); err != nil {
		t.Error(err)
	}
	if err := s.Label(answers[0].ID, answers[0].Class); err != ErrUnknownID {
		t.Error(err)
	}
	if err := s.Label(answers[1].ID, classes); err == nil {
		t.Error("a label that is no class was taken")
	}
	found := reportOf(s)
	if found.Images != 50 || found.Labelled != 1 || found.Watches[0].Evidence == 0 ||
		found.Alarm != "" {
		t.Error(found)
	}
}
