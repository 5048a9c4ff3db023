package monitor

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"

	"agflow/core/fault"
	"agflow/core/routing"
)

// imageOf is an image that stays, audited, on which the answers differ so.
func imageOf(id string, d int8, labelled bool) Image {
	image := Image{ID: id, Prior: 0.9, Draw: Everything, Answer: answers[d][0],
		Heavy: &classes[answers[d][1]]}
	if labelled {
		image.Label = &classes[0]
	}
	return image
}

func watchOf(t testing.TB, watches []Watch, name string) Watch {
	t.Helper()
	for _, w := range watches {
		if w.Name == name {
			return w
		}
	}
	t.Fatalf("there is no watch %s", name)
	return Watch{}
}

func TestABrokenPromiseIsSaid(t *testing.T) {
	s := newStream(1, 0.8)
	m := s.life(t, calm, 1600, DefaultOptions())
	for i := range 20_000 {
		r := calm
		if i >= 2000 {
			r.lost += 0.05
		}
		s.feed(m, r, true)
	}
	r := m.Report()
	w := watchOf(t, r.Watches, AccuracyWatch)
	if w.Alarm == nil || w.Alarm.Image < 2000 || w.Evidence < w.Needs || r.Alarm != w.Says ||
		!strings.HasPrefix(r.Alarm, "the promise of 0.5 points no longer holds: ") {
		t.Errorf("got %+v and the alarm %q", w, r.Alarm)
	}
	if l := r.Loss; l.Interval[0] <= 0.005 || l.Interval[0] > 0.052 || l.Interval[1] < 0.052 {
		t.Errorf("the loss is 5.2 points, got %+v", l)
	}
	if !r.Raised || r.Share != 0.2 || r.Images != 20_000 {
		t.Errorf("got %+v", r)
	}
	if a := watchOf(t, r.Watches, AgreementWatch); a.Alarm == nil ||
		!strings.Contains(a.Says, "differ from the heavy expert's on") {
		t.Errorf("got %+v", a)
	}
	for _, name := range []string{EscalationWatch, PriorWatch} {
		if w := watchOf(t, r.Watches, name); w.Alarm != nil {
			t.Errorf("%s: %+v", name, w)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

// More images of low confidence: escalation and priors say so, accuracy does not.
func TestAnotherMixIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		power float64
		says  string
	}{
		"less confident": {1.3, "more images escalate than calibration showed"},
		"more confident": {0.75, "fewer images escalate than calibration showed"},
	} {
		s := newStream(2, 0.8)
		m := s.life(t, calm, 1600, DefaultOptions())
		for range 20_000 {
			prior, _ := s.next(calm)
			prior = float32(math.Pow(float64(prior), c.power))
			err := m.Observe(Image{Prior: prior, Escalated: prior < escalating})
			if err != nil {
				t.Fatal(err)
			}
		}
		r := m.Report()
		if w := watchOf(t, r.Watches, EscalationWatch); w.Alarm == nil ||
			!strings.HasPrefix(w.Says, c.says) {
			t.Errorf("%s: %+v", name, w)
		}
		if w := watchOf(t, r.Watches, PriorWatch); w.Alarm == nil ||
			!strings.Contains(w.Says, "no longer distributed") {
			t.Errorf("%s: %+v", name, w)
		}
		if r.Alarm != "" || r.Loss != nil || r.Disagreement != nil {
			t.Errorf("%s: %+v", name, r)
		}
		if e := r.Escalation; e.LiveInterval[0] > e.Live || e.LiveInterval[1] < e.Live ||
			e.LiveImages != 10_000 || e.Calibrated == 0 {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// What is watched of a router that promises something else, or nothing, or whose calibration is
// not at hand.
//
// The function is long because of its table of routers.
func TestWhatIsWatched(t *testing.T) {
	plain := simulatedRouter(t, 1600, 320)
	with := func(change func(*routing.Router)) routing.Router {
		r := plain
		change(&r)
		return r
	}
	limited := with(func(r *routing.Router) {
		r.Target, r.Limit = routing.EscalationTarget, 0.25
	})
	charged := with(func(r *routing.Router) { // 0.2 + e at costs of 1 and 5
		r.Target, r.Limit = routing.ChargedTarget, 0.45
	})
	failed := with(func(r *routing.Router) {
		r.Verdict, r.Threshold.Threshold = routing.Fail, routing.EscalateAll
	})
	silent := DefaultOptions()
	silent.Share = 0
	for name, c := range map[string]struct {
		router         routing.Router
		options        Options
		watch, off     string
		promised, says string
	}{
		"escalation": {limited, DefaultOptions(), AccuracyWatch, "no accuracy was promised",
			"escalation <= 0.25", "the promise of an escalation of at most 25 %"},
		"charged": {charged, DefaultOptions(), AccuracyWatch, "no accuracy was promised",
			"expected cost per image <= 0.45x", "the promise of an escalation of at most 25 %"},
		"failed": {failed, DefaultOptions(), AccuracyWatch, "every image escalates",
			"nothing is guaranteed", ""},
		"no audit": {plain, silent, AccuracyWatch, "no image is audited", "accuracy(cascade)",
			"more images escalate"},
		"no calibration": {plain, DefaultOptions(), AgreementWatch,
			"give the predictions that calibrated it", "accuracy(cascade)",
			"more images escalate"},
	} {
		m, err := New(c.router, nil, c.options)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2000 {
			prior := float32(i%100) / 200
			image := Image{Prior: prior, Escalated: m.router.Escalates(prior)}
			image.Draw = m.Audit(prior, image.Escalated)
			image.Heavy = &classes[0]
			if err := m.Observe(image); err != nil {
				t.Fatal(err)
			}
		}
		r := m.Report()
		if w := watchOf(t, r.Watches, c.watch); !strings.Contains(w.Off, c.off) ||
			w.Alarm != nil || w.Evidence != 1 || !strings.HasPrefix(w.Says, "off: ") {
			t.Errorf("%s: %+v", name, w)
		}
		if !strings.Contains(r.Promise, c.promised) {
			t.Errorf("%s: %q is promised", name, r.Promise)
		}
		e := watchOf(t, r.Watches, EscalationWatch)
		if c.says != "" && !strings.HasPrefix(e.Says, c.says) {
			t.Errorf("%s: %+v", name, e)
		}
		if isPromise := strings.HasPrefix(c.says, "the promise"); isPromise != (r.Alarm != "") {
			t.Errorf("%s: the alarm is %q", name, r.Alarm)
		}
	}
}

func TestLabelsComeLate(t *testing.T) {
	m, err := New(simulatedRouter(t, 1600, 320), nil, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	at := func(id string, d int8) {
		t.Helper()
		if err := m.Observe(imageOf(id, d, false)); err != nil {
			t.Fatal(err)
		}
	}
	at("a", 1)
	at("b", -1)
	at("", 1) // can't be named, so it does not wait
	if r := m.Report(); r.Awaited != 2 || r.Labelled != 0 || r.Loss != nil {
		t.Fatalf("got %+v", r)
	}
	if err := m.Label("a", 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Label("a", 0); err != error(ErrUnknownID) {
		t.Errorf("a second label: %v", err)
	}
	requireCode(t, m.Label("b", -1), fault.Value)
	if r := m.Report(); r.Awaited != 1 || r.Labelled != 1 || r.Loss.Value != 1 {
		t.Fatalf("got %+v", r)
	}
	for i := range mostAwaited + 10 {
		at(fmt.Sprint(i), 0)
	}
	if err := m.Label("b", 0); err != error(ErrUnknownID) {
		t.Errorf("an image that waited too long: %v", err)
	}
	if err := m.Label("15", 0); err != nil {
		t.Error(err)
	}
	if r := m.Report(); r.Awaited != mostAwaited-1 || r.Dropped != 11 {
		t.Errorf("%d wait, %d were dropped", r.Awaited, r.Dropped)
	}
}

func TestImagesThatCannotBe(t *testing.T) {
	m, err := New(simulatedRouter(t, 1600, 320), nil, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	nan, negative := float32(math.NaN()), -1
	for name, c := range map[string]struct {
		change func(*Image)
		code   fault.Code
		says   string
	}{
		"nan":     {func(i *Image) { i.Prior = nan }, fault.Nonfinite, "priors are finite"},
		"another": {func(i *Image) { i.Escalated = true }, fault.Value, "another router"},
		"id": {func(i *Image) { i.ID = strings.Repeat("x", 129) }, fault.Value,
			"at most 128"},
		"class":     {func(i *Image) { i.Answer = -1 }, fault.Value, "negative class"},
		"label":     {func(i *Image) { i.Label = &negative }, fault.Value, "negative class"},
		"share":     {func(i *Image) { i.Share = 0 }, fault.Value, "drawn with share 0"},
		"least":     {func(i *Image) { i.Share = 0.5 }, fault.Value, "the least is no greater"},
		"no answer": {func(i *Image) { i.Heavy = nil }, fault.Value, "no answer of the heavy"},
	} {
		image := imageOf("x", 1, true)
		c.change(&image)
		before, _ := m.State()
		t.Run(name, func(t *testing.T) { requireSays(t, m.Observe(image), c.code, c.says) })
		if after, _ := m.State(); string(after) != string(before) {
			t.Errorf("%s: it was counted", name)
		}
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	router := simulatedRouter(t, 1600, 320)
	for says, change := range map[string]func(*Options){
		"the level":              func(o *Options) { o.Level = 1 },
		"the audit share":        func(o *Options) { o.Share = math.NaN() },
		"the raised audit share": func(o *Options) { o.RaisedShare = 0.001 },
	} {
		o := DefaultOptions()
		change(&o)
		_, err := New(router, nil, o)
		requireSays(t, err, fault.Value, says)
	}
	router.Format = 3
	_, err := New(router, nil, DefaultOptions())
	requireCode(t, err, fault.Value)
	c := &Calibration{Priors: []float32{float32(math.Inf(1))}}
	_, err = New(simulatedRouter(t, 1600, 320), c, DefaultOptions())
	requireCode(t, err, fault.Nonfinite)
}

// The audit draws as many as it says, more of those near the threshold, and the mean of the shares
// is the one that was asked for.
func TestTheAuditDraws(t *testing.T) {
	for _, share := range []float64{0.01, 0.1, 0.5, 0.9, 1} {
		s, o := newStream(5, blind), DefaultOptions()
		o.Share, o.RaisedShare = share, share
		m := s.life(t, calm, 4000, o)
		const n = 40_000
		drawn, expected, near := 0.0, 0.0, 0
		for range n {
			prior := float32(escalating + (1-escalating)*s.random.Float64())
			d := m.Audit(prior, false)
			drawn += float64(truth(d.Audited))
			expected += d.Share
			near += int(truth(d.Share > d.Least))
			if d.Least > d.Share || d.Share > 1 {
				t.Fatalf("got %+v", d)
			}
		}
		if math.Abs(drawn-expected) > 4*math.Sqrt(expected)+1 ||
			math.Abs(expected/n-share) > 0.03*share {
			t.Errorf("share %v: %v drawn, %v expected of %d", share, drawn, expected, n)
		}
		if share < 1 && math.Abs(float64(near)/n-nearest) > 0.03 {
			t.Errorf("share %v: %d of %d are near", share, near, n)
		}
	}
}

func TestReplicasAreAveraged(t *testing.T) {
	s := newStream(6, 0.8)
	m := s.life(t, calm, 1600, DefaultOptions())
	quiet, loud := m.Report(), Report{}
	for range 30_000 {
		s.feed(m, rates{0.1, 0}, true)
	}
	loud = m.Report()
	got, err := Average([]Report{quiet, loud})
	if err != nil {
		t.Fatal(err)
	}
	w, alone := watchOf(t, got.Watches, AccuracyWatch), watchOf(t, loud.Watches, AccuracyWatch)
	if w.Evidence != (1+alone.Evidence)/2 || w.Alarm == nil ||
		!strings.Contains(w.Says, "1 of 2 replicas raised an alarm of their own") {
		t.Errorf("got %+v of %+v", w, alone)
	}
	if w := watchOf(t, got.Watches, PriorWatch); w.Alarm != nil || w.Evidence > w.Needs {
		t.Errorf("got %+v", w)
	}
	if got.Replicas != 2 || got.Images != quiet.Images+loud.Images ||
		got.Audited != quiet.Audited+loud.Audited ||
		got.Labelled != quiet.Labelled+loud.Labelled || got.Promise != loud.Promise {
		t.Errorf("got %+v of %+v and %+v", got, quiet, loud)
	}
	if watchOf(t, quiet.Watches, AccuracyWatch).Evidence != 1 {
		t.Error("the reports have changed")
	}
	_, err = Average(nil)
	requireCode(t, err, fault.Empty)
	other := loud
	other.Router = "another"
	_, err = Average([]Report{loud, other})
	requireSays(t, err, fault.Value, "of one router")
	o := DefaultOptions()
	o.Level = 0.01
	strict := s.life(t, calm, 1600, o).Report()
	strict.Router = loud.Router
	_, err = Average([]Report{loud, strict})
	requireSays(t, err, fault.Value, "of equal options")
}

// One monitor may be used from several goroutines.
func TestConcurrentUse(t *testing.T) {
	s := newStream(7, 0.8)
	m := s.life(t, calm, 400, DefaultOptions())
	var group sync.WaitGroup
	const workers, each = 4, 500
	for k := range workers {
		group.Go(func() {
			s := newStream(uint64(k), 0.8)
			for i := range each {
				s.feed(m, calm, true)
				if i%100 == 0 {
					m.Report()
					if _, err := m.State(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	if r := m.Report(); r.Images != workers*each {
		t.Errorf("%d images", r.Images)
	}
}

func TestCalibrationOfPredictions(t *testing.T) {
	router := simulatedRouter(t, 4, 1)
	priors, heavy := []float32{0.1, 0.3, 0.5, 0.9}, []int64{0, 1, 2, 3}
	c, err := NewCalibration(router, priors, []int64{7, 1, 1, 3}, heavy, nil)
	want := &Calibration{Priors: priors, Disagreements: 1} // the first escalates
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Fatalf("got %+v, %v", c, err)
	}
	ensemble := router
	ensemble.Answers, ensemble.LightWeight = routing.EnsembleAnswers, 0.5
	c, err = NewCalibration(ensemble, priors, heavy, heavy, []int64{5, 5, 5, 5})
	if err != nil || c.Disagreements != 1 {
		t.Fatalf("got %+v, %v", c, err)
	}
	_, err = NewCalibration(router, priors[1:], heavy[1:], heavy[1:], nil)
	requireSays(t, err, fault.Value, "give the predictions that the router was calibrated with")
	_, err = NewCalibration(router, []float32{0.1, 0.1, 1, 1}, heavy, heavy, nil)
	requireSays(t, err, fault.Value, "2 of these escalate")
	_, err = NewCalibration(router, priors, heavy[1:], heavy, nil)
	requireCode(t, err, fault.Shape)
}

// The calibration of a router whose prior the data chose is on a part of the predictions.
func TestCalibrationOfAPart(t *testing.T) {
	const n = 400
	priors, classes := make([]float32, n), make([]int64, n)
	kept, below := int64(0), int64(0)
	for i := range priors {
		priors[i] = float32(i%10) / 10
		if !routing.Chooses(i) {
			kept++
			below += int64(truth(priors[i] < escalating))
		}
	}
	c, err := NewCalibration(simulatedRouter(t, kept, below), priors, classes, classes, nil)
	if err != nil || int64(len(c.Priors)) != kept || kept == n {
		t.Fatalf("got %+v, %v", c, err)
	}
}

// BenchmarkImage is what one image costs, with its draw.
func BenchmarkImage(b *testing.B) {
	s := newStream(8, 0.8)
	m := s.life(b, calm, 1600, DefaultOptions())
	priors := make([]float32, 4096)
	for i := range priors {
		priors[i], _ = s.next(calm)
	}
	b.ReportAllocs()
	for i := range b.N {
		prior := priors[i%len(priors)]
		image := Image{Prior: prior, Escalated: prior < escalating}
		m.Audit(prior, image.Escalated)
		if err := m.Observe(image); err != nil {
			b.Fatal(err)
		}
	}
}
