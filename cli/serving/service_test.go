package serving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agflow/core/routing"
	"agflow/core/routing/monitor"
	"agflow/core/tensor"
)

const pixels, classes = 3, 4

// linear are two linear experts: logits of class c are gain · x[c mod pixels] · (c + 1), and the
// heavy expert's have the opposite sign.
type linear struct {
	gain   float32
	router routing.Router
	delay  time.Duration

	mu      sync.Mutex
	batches []int
	closed  atomic.Bool
}

func routerOf(threshold float64) routing.Router {
	ledger, err := routing.NewLedger(routing.Cost{Light: 1, Heavy: 4, Unit: routing.MACs}, 10, 3)
	if err != nil {
		panic(err)
	}
	return routing.Router{
		Format: routing.RouterFormat, Prior: routing.MaxProbability, Temperature: 1,
		Answers: routing.HeavyAnswers, Ledger: ledger,
		Threshold: routing.Threshold{Threshold: threshold},
	}
}

func (l *linear) Model() Model {
	return Model{
		Name: "linear", Channels: 1, Height: 1, Width: pixels, Classes: classes, Router: l.router,
		Cost: routing.Cost{Light: 1, Heavy: 4, Unit: routing.MACs},
	}
}

func (l *linear) logits(images []float32, sign float32) (logits []float32) {
	for i := 0; i < len(images); i += pixels {
		if images[i] == 77 {
			panic("an expert that panics")
		}
		for c := range classes {
			logits = append(logits, sign*l.gain*images[i+c%pixels]*float32(c+1))
		}
	}
	return logits
}

func (l *linear) Prepare(encoded []byte) ([]float32, error) { return nil, errors.New("no images") }

func (l *linear) Light(images []float32, n int) ([]float32, error) {
	l.mu.Lock()
	l.batches = append(l.batches, n)
	l.mu.Unlock()
	if l.closed.Load() {
		return nil, errors.New("used after it was closed")
	}
	time.Sleep(l.delay)
	return l.logits(images, 1), nil
}

func (l *linear) Heavy(images []float32, rows []int32) ([]float32, error) {
	if l.closed.Load() || len(images) != pixels*len(rows) {
		return nil, errors.New("used after it was closed, or with other rows")
	}
	return l.logits(images, -1), nil
}

func (l *linear) Close() error { l.closed.Store(true); return nil }

// answer is what the cascade must say of an image.
func (l *linear) answer(t *testing.T, image []float32) (class int, escalated bool) {
	t.Helper()
	light, err := tensor.NewView(l.logits(image, 1), 1, classes)
	if err != nil {
		t.Fatal(err)
	}
	decided, err := l.router.Decide(light)
	if err != nil {
		t.Fatal(err)
	}
	if decided.Escalate[0] {
		return greatest(l.logits(image, -1)), true
	}
	return int(decided.Prediction[0]), false
}

type counted struct {
	mu                         sync.Mutex
	images, escalated, audited int
	answered                   int
	passes                     []Pass
	reloads                    []bool
}

func (c *counted) Batch(p Pass) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.images, c.escalated = c.images+p.Images, c.escalated+p.Escalated
	c.audited += p.Audited
	c.passes = append(c.passes, p)
}

func (c *counted) Answered(string, float64, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered++
}
func (c *counted) Refused(string) {}
func (c *counted) Queue(int)      {}
func (c *counted) Reloaded(ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reloads = append(c.reloads, ok)
}

func options() Options {
	return Options{
		MaxBatch: 8, MaxWait: time.Millisecond, MaxQueue: 64,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func serve(t *testing.T, experts Experts, o Options) (*Service, *counted) {
	t.Helper()
	observer := &counted{}
	s, err := NewService(experts, o, observer)
	if err != nil {
		t.Fatal(err)
	}
	return s, observer
}

func ask(ctx context.Context, s *Service, images []float32) ([]Answer, error) {
	held := s.hold()
	defer held.Release()
	return held.Answer(ctx, images, len(images)/pixels)
}

func someImage(random *rand.Rand) []float32 {
	image := make([]float32, pixels)
	for i := range image {
		image[i] = float32(random.NormFloat64())
	}
	return image
}

func TestEachCallerGetsTheAnswersToItsImages(t *testing.T) {
	experts := &linear{gain: 1, router: routerOf(0.6)}
	o := options()
	o.MaxQueue = 1000
	s, observer := serve(t, experts, o)
	var group sync.WaitGroup
	var escalated atomic.Int64
	ids := sync.Map{}
	for caller := range 40 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(caller), 1))
			for range 20 {
				n := 1 + random.IntN(12)
				var images []float32
				for range n {
					images = append(images, someImage(random)...)
				}
				answers, err := ask(context.Background(), s, images)
				if err != nil || len(answers) != n {
					t.Errorf("%d answers to %d images: %v", len(answers), n, err)
					return
				}
				for i, a := range answers {
					class, heavy := experts.answer(t, images[i*pixels:(i+1)*pixels])
					if heavy {
						escalated.Add(1)
					}
					checkAnswer(t, a, class, heavy)
					if _, twice := ids.LoadOrStore(a.ID, true); twice {
						t.Errorf("the id %s was given twice", a.ID)
					}
				}
			}
		})
	}
	group.Wait()
	s.Close()
	if observer.images != observer.answered || int64(observer.escalated) != escalated.Load() {
		t.Errorf("observed %+v, want %d escalated", observer, escalated.Load())
	}
	if most := slices.Max(experts.batches); most > o.MaxBatch || most < 2 {
		t.Errorf("the largest batch was of %d images", most)
	}
	if !experts.closed.Load() {
		t.Error("the experts were not closed")
	}
}

func checkAnswer(t *testing.T, a Answer, class int, heavy bool) {
	t.Helper()
	expert, cost := "light", 0.25
	if heavy {
		expert, cost = "heavy", 1.25
	}
	if a.Class != class || a.Expert != expert || a.Cost != cost {
		t.Errorf("answered %+v, want class %d of the %s expert at %v", a, class, expert, cost)
	}
	if !(a.Probability > 0 && a.Probability <= 1) || greatest(a.Logits) != class {
		t.Errorf("probability %v and logits %v of class %d", a.Probability, a.Logits, class)
	}
}

// A pass says of how many requests it has images, and its times are parts of the whole.
func TestPassesAreReported(t *testing.T) {
	o := options()
	o.MaxBatch, o.MaxWait = 3, time.Minute
	experts := &linear{gain: 1, router: routerOf(0.6), delay: time.Millisecond}
	s, observer := serve(t, experts, o)
	began := time.Now()
	var group sync.WaitGroup
	for n := range 2 { // one batch, full with the images of both
		group.Go(func() {
			if _, err := ask(context.Background(), s, make([]float32, (n+1)*pixels)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if _, err := ask(context.Background(), s, make([]float32, 6*pixels)); err != nil {
		t.Error(err)
	}
	s.Close()
	took := time.Since(began)
	if len(observer.passes) != 3 {
		t.Fatalf("got %+v", observer.passes)
	}
	for i, p := range observer.passes {
		parts := p.Input + p.Light + p.Heavy + p.Output
		if p.Images != 3 || p.Requests != []int{2, 1, 1}[i] || p.Light < experts.delay ||
			parts > took || p.Output <= 0 || p.Queued <= 0 {
			t.Errorf("batch %d: got %+v", i, p)
		}
	}
	if second, third := observer.passes[1], observer.passes[2]; third.Queued < second.Light {
		t.Errorf("the last batch waited %v, and the one before took %v", third.Queued,
			second.Light)
	}
}

func TestFullQueueRefusesAndFrees(t *testing.T) {
	o := options()
	o.MaxQueue, o.MaxBatch = 8, 2
	s, _ := serve(t, &linear{gain: 1, router: routerOf(0.6), delay: 50 * time.Millisecond}, o)
	defer s.Close()
	eight := make([]float32, 8*pixels)
	if _, err := ask(context.Background(), s, append(eight, 0, 0, 0)); err == nil ||
		!strings.Contains(err.Error(), "the request has 9 images, expected at most 8") {
		t.Error(err)
	}
	var busy, answered atomic.Int64
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			switch _, err := ask(context.Background(), s, eight); {
			case err == nil:
				answered.Add(1)
			case errors.Is(err, ErrBusy):
				busy.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if busy.Load() == 0 || answered.Load() == 0 {
		t.Errorf("%d busy, %d answered", busy.Load(), answered.Load())
	}
	if _, err := ask(context.Background(), s, eight); err != nil {
		t.Errorf("after the burst: %v", err)
	}
}

func TestCallersThatGoFreeTheQueue(t *testing.T) {
	o := options()
	o.MaxQueue, o.MaxBatch = 4, 1
	experts := &linear{gain: 1, router: routerOf(0.6), delay: 20 * time.Millisecond}
	s, _ := serve(t, experts, o)
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := ask(ctx, s, make([]float32, 4*pixels)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := ask(context.Background(), s, make([]float32, 3*pixels)); err != nil {
		t.Errorf("the places of a caller that has gone: %v", err)
	}
	if _, err := ask(ctx, s, make([]float32, pixels)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if seen := len(experts.batches); seen > 6 {
		t.Errorf("%d images were computed, of which some were not wanted", seen)
	}
}

func TestImagesThatFailFailAlone(t *testing.T) {
	o := options()
	o.MaxWait = 30 * time.Millisecond
	s, _ := serve(t, &linear{gain: 1, router: routerOf(0.6)}, o)
	defer s.Close()
	var group sync.WaitGroup
	for i, value := range []float32{1, 2, float32(math.NaN()), 4, 77, 6, 7, 8} {
		group.Go(func() {
			_, err := ask(context.Background(), s, []float32{value, 1, 1})
			want := map[int]string{2: "not finite", 4: "an expert that panics"}[i]
			if want == "" && err != nil || want != "" && !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("image %d: %v, want %q", i, err, want)
			}
		})
	}
	group.Wait()
	_, err := ask(context.Background(), s, []float32{1, 2, 3, float32(math.Inf(1)), 1, 1})
	if err == nil || !strings.Contains(err.Error(), "not finite") {
		t.Errorf("a request with a bad image: %v", err)
	}
}

func TestWrongSizesAreRefused(t *testing.T) {
	s, _ := serve(t, &linear{gain: 1, router: routerOf(0.6)}, options())
	defer s.Close()
	held := s.hold()
	defer held.Release()
	for numbers, n := range map[int]int{0: 0, 3: 2, 6: 1, 5: 1, 2: math.MaxInt} {
		if _, err := held.Answer(context.Background(), make([]float32, numbers), n); err == nil ||
			!strings.Contains(err.Error(), "expected [images, 1, 1, 3]") {
			t.Errorf("%d numbers of %d images: %v", numbers, n, err)
		}
	}
}

func TestReloadLosesNothing(t *testing.T) {
	first := &linear{gain: 1, router: routerOf(0.6), delay: time.Millisecond}
	s, observer := serve(t, first, options())
	stop := make(chan struct{})
	var group sync.WaitGroup
	var answered atomic.Int64
	for caller := range 8 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(caller), 2))
			for {
				select {
				case <-stop:
					return
				default:
				}
				image := someImage(random)
				held := s.hold()
				answers, err := held.Answer(context.Background(), image, 1)
				of := held.g.experts.(*linear)
				held.Release()
				if err != nil {
					t.Error(err)
					return
				}
				class, heavy := of.answer(t, image)
				checkAnswer(t, answers[0], class, heavy)
				answered.Add(1)
			}
		})
	}
	loaded := []*linear{first}
	for i := range 20 {
		time.Sleep(5 * time.Millisecond)
		next := &linear{gain: float32(1 + i%3), router: routerOf(0.3 + 0.02*float64(i))}
		if err := s.Reload(func() (Experts, error) { return next, nil }); err != nil {
			t.Error(err)
		}
		loaded = append(loaded, next)
	}
	missing := errors.New("no such folder")
	if err := s.Reload(func() (Experts, error) { return nil, missing }); err != missing {
		t.Error(err)
	}
	close(stop)
	group.Wait()
	last := loaded[len(loaded)-1]
	for _, experts := range loaded {
		if experts.closed.Load() == (experts == last) {
			t.Errorf("experts are closed: %v", experts.closed.Load())
		}
	}
	s.Close()
	if !last.closed.Load() || len(observer.reloads) != 21 || observer.reloads[20] ||
		answered.Load() == 0 {
		t.Errorf("%d reloads, %d answers", len(observer.reloads), answered.Load())
	}
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	o := options()
	o.MaxBatch, o.MaxWait = 2, time.Hour
	s, _ := serve(t, &linear{gain: 1, router: routerOf(0.6), delay: 10 * time.Millisecond}, o)
	var group sync.WaitGroup
	for range 5 {
		group.Go(func() {
			if _, err := ask(context.Background(), s, []float32{1, 2, 3}); err != nil {
				t.Error(err)
			}
		})
	}
	for s.State().Queued == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	s.Drain()
	if state := s.State(); state.Ready || !state.Draining || state.NotReady == "" {
		t.Errorf("%+v", state)
	}
	held := s.hold()
	s.Close()
	group.Wait()
	defer held.Release()
	if _, err := held.Answer(context.Background(), []float32{1, 2, 3}, 1); !errors.Is(err,
		ErrDraining) {
		t.Error(err)
	}
}

// everyThird audits every third image, and alarms once it has seen so many.
type everyThird struct {
	drawn, seen, limit int
	observed           []monitor.Image
	saved              bool
}

func (w *everyThird) Audit(float32, bool) monitor.Draw {
	w.drawn++
	return monitor.Draw{Audited: w.drawn%3 == 0, Share: 1. / 3, Least: 1. / 3}
}
func (w *everyThird) Observe(i monitor.Image) error {
	w.seen++
	w.observed = append(w.observed, i)
	return nil
}
func (w *everyThird) Label(string, int) error { return nil }
func (w *everyThird) Report() any             { return w.seen }
func (w *everyThird) Close() error            { w.saved = true; return nil }
func (w *everyThird) Alarm() string {
	if w.seen < w.limit {
		return ""
	}
	return "the promise no longer holds"
}

func TestAuditsAndAlarms(t *testing.T) {
	for _, action := range []OnAlarm{LogAlarm, EscalateAll, Unready} {
		watch := &everyThird{limit: 60}
		o := options()
		o.OnAlarm, o.MaxBatch = action, 1
		o.Watch = func(Model) (Watch, error) { return watch, nil }
		experts := &linear{gain: 1, router: routerOf(0.6)}
		s, observer := serve(t, experts, o)
		random := rand.New(rand.NewPCG(3, 3))
		for i := range 120 {
			image := someImage(random)
			answers, err := ask(context.Background(), s, image)
			if err != nil {
				t.Fatal(err)
			}
			checkAudit(t, experts, image, answers[0], watch.observed[i],
				action == EscalateAll && i >= watch.limit, i%3 == 2)
		}
		if state := s.State(); state.Ready == (action == Unready) || state.Monitor != 120 {
			t.Errorf("%s: %+v", action, state)
		}
		s.Close()
		if observer.audited == 0 || observer.audited > 40 || !watch.saved {
			t.Errorf("%s: %d audited, saved %v", action, observer.audited, watch.saved)
		}
	}
}

// checkAudit compares an answer and what the watch saw with what is right, where all images
// escalate or one was drawn.
func checkAudit(
	t *testing.T, experts *linear, image []float32, a Answer, seen monitor.Image, all, drawn bool,
) {
	t.Helper()
	class, escalates := experts.answer(t, image)
	heavy := greatest(experts.logits(image, -1))
	if seen.Escalated != escalates || seen.Answer != class || seen.ID != a.ID ||
		seen.Audited != (drawn || all) {
		t.Errorf("the watch saw %+v, want class %d, escalated %v", seen, class, escalates)
	}
	asked := escalates || drawn || all
	if (seen.Heavy != nil) != asked || asked && *seen.Heavy != heavy || (a.Cost == 1.25) != asked {
		t.Errorf("%+v and %+v: asked %v, class %d", a, seen, asked, heavy)
	}
	if all {
		class, escalates = heavy, true
	}
	if a.Class != class || (a.Expert == "heavy") != escalates ||
		a.Audited != (drawn && !escalates) {
		t.Errorf("%+v, want class %d, escalated %v", a, class, escalates)
	}
}

func TestEnsembleAnswers(t *testing.T) {
	router := routerOf(2)
	router.Answers, router.LightWeight = routing.EnsembleAnswers, 0.75
	experts := &linear{gain: 1, router: router}
	s, _ := serve(t, experts, options())
	defer s.Close()
	image := []float32{0.5, -1, 2}
	answers, err := ask(context.Background(), s, image)
	if err != nil {
		t.Fatal(err)
	}
	light, _ := tensor.NewView(experts.logits(image, 1), 1, classes)
	heavy, _ := tensor.NewView(experts.logits(image, -1), 1, classes)
	want, err := routing.Combine(light, heavy, 0.75)
	if err != nil {
		t.Fatal(err)
	}
	if a := answers[0]; a.Expert != "ensemble" || !slices.Equal(a.Logits, want) ||
		a.Class != greatest(want) {
		t.Errorf("%+v, want %v", a, want)
	}
}
