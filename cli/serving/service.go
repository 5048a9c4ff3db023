package serving

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"agflow/core/fault"
)

// Options of a [Service].
type Options struct {
	MaxBatch int // images
	MaxWait  time.Duration
	MaxQueue int // images
	OnAlarm  OnAlarm
	Log      *slog.Logger
	// Watch makes the watch over a cascade, nil for none.
	Watch func(Model) (Watch, error)
}

// Service answers images by a cascade: it collects the images of many callers into batches, which
// one goroutine runs.
type Service struct {
	options  Options
	queue    *queue
	observer Observer
	ids      *ids
	answered atomic.Int64
	ended    chan struct{} // closed when the last batch has run

	mu       sync.Mutex
	current  *generation
	draining bool
}

// NewService begins to serve. It owns the experts from now on, even where it fails.
func NewService(experts Experts, options Options, observer Observer) (*Service, error) {
	s := &Service{
		options: options, queue: newQueue(options.MaxQueue), observer: observer,
		ids: newIDs(), ended: make(chan struct{}),
	}
	first, err := s.generationOf(experts)
	if err != nil {
		return nil, err
	}
	s.current = first
	go s.run()
	return s, nil
}

func (s *Service) generationOf(experts Experts) (*generation, error) {
	g := &generation{
		experts: experts, model: experts.Model(), onAlarm: s.options.OnAlarm, ids: s.ids,
		holders: 1,
	}
	g.model.MaxBatch = s.options.MaxBatch
	g.ended = func() { s.end(g) }
	if s.options.Watch == nil {
		return g, nil
	}
	watch, err := s.options.Watch(g.model)
	if err != nil {
		return nil, errors.Join(err, experts.Close())
	}
	g.watch = watch
	return g, nil
}

// Reload loads other experts, which answer from the next request on; requests under way are
// answered by those that they began with. Where it fails, the experts of before go on.
func (s *Service) Reload(load func() (Experts, error)) (err error) {
	defer func() { s.observer.Reloaded(err == nil) }()
	experts, err := load()
	if err != nil {
		return err
	}
	current := s.hold()
	s.closeWatch(current.g) // the next one may go on from its evidence
	current.Release()
	next, err := s.generationOf(experts)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before := s.current
	s.current = next
	s.mu.Unlock()
	before.release()
	return nil
}

// end lets go of a generation that nobody holds any more.
func (s *Service) end(g *generation) {
	s.closeWatch(g)
	if err := g.experts.Close(); err != nil {
		s.options.Log.Error("experts were not closed", "error", err)
	}
}

func (s *Service) closeWatch(g *generation) {
	if g.watch == nil {
		return
	}
	if err := g.watch.Close(); err != nil {
		s.options.Log.Error("the evidence was not saved", "error", fault.Sentence(err))
	}
}

// Hold returns the cascade that answers now. The caller releases it.
func (s *Service) Hold() Held { return s.hold() }

func (s *Service) hold() held {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.hold()
	return held{s, s.current}
}

// Label takes the label of an answered image.
func (s *Service) Label(id string, class int) error {
	current := s.hold()
	defer current.Release()
	if current.g.watch == nil {
		return ErrUnknownID
	}
	if class < 0 || class >= current.g.model.Classes {
		return fault.New(fault.Value, "the label is %d, expected a class from 0 to %d", class,
			current.g.model.Classes-1)
	}
	return current.g.watch.Label(id, class)
}

// State is what metrics and the status page show.
func (s *Service) State() State {
	current := s.hold()
	defer current.Release()
	state := State{Queued: s.queue.length(), Draining: s.isDraining()}
	if current.g.watch != nil {
		state.Monitor = current.g.watch.Report()
	}
	switch alarm := current.g.alarm(); {
	case state.Draining:
		state.NotReady = "the server is ending"
	case alarm != "" && s.options.OnAlarm == Unready:
		state.NotReady = alarm
	}
	state.Ready = state.NotReady == ""
	return state
}

// Drain says that the server ends: it is no longer ready, and goes on answering.
func (s *Service) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
}

func (s *Service) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Close refuses further images, answers those that wait and lets go of the experts.
func (s *Service) Close() {
	s.Drain()
	s.queue.close()
	<-s.ended
	s.current.release()
}

// Answered is the number of images that were answered.
func (s *Service) Answered() int64 { return s.answered.Load() }

// run answers batch after batch.
func (s *Service) run() {
	defer close(s.ended)
	for {
		batch := s.queue.take(s.options.MaxWait)
		if batch == nil {
			return
		}
		s.observer.Queue(s.queue.length())
		s.answer(wanted(batch))
	}
}

// wanted are the images whose callers still wait.
func wanted(batch []item) (kept []item) {
	for _, i := range batch {
		if err := i.ctx.Err(); err != nil {
			i.finish(err)
		} else if i.left > 0 { // another image of the request may have failed
			kept = append(kept, i)
		}
	}
	return kept
}

// answer runs a batch; of one that fails, each half by itself, so that an image that overflows
// fails alone.
func (s *Service) answer(batch []item) {
	if len(batch) == 0 {
		return
	}
	g := batch[0].from
	found, err := g.guarded(batch)
	switch {
	case err == nil:
		s.deliver(batch, found)
	case len(batch) == 1:
		s.options.Log.Warn("an image could not be answered", "error", err)
		batch[0].finish(err)
	default:
		s.answer(wanted(batch[:len(batch)/2]))
		s.answer(wanted(batch[len(batch)/2:]))
	}
}

// guarded passes a batch, and makes an error of a panic, which must not end the goroutine that
// serves everybody.
func (g *generation) guarded(batch []item) (p passed, err error) {
	defer fault.Recover(&err)
	began := time.Now()
	images := joined(batch)
	input := time.Since(began)
	if p, err = g.pass(images, len(batch)); err != nil {
		return passed{}, err
	}
	p.Images, p.Input = len(batch), input
	p.Output = time.Since(began) - p.Input - p.Light - p.Heavy
	p.Requests, p.Queued = waited(batch, began)
	return p, nil
}

// waited is how many requests a batch has images of, and how long all of them waited for it.
func waited(batch []item, began time.Time) (requests int, queued time.Duration) {
	var last *request
	for _, i := range batch { // those of one request lie together
		if i.request != last {
			requests, queued, last = requests+1, queued+began.Sub(i.queued), i.request
		}
	}
	return requests, queued
}

// joined are the images of a batch, one behind the other: those of one request lie so already.
func joined(batch []item) []float32 {
	first, size := batch[0], batch[0].from.model.size()
	if last := batch[len(batch)-1]; last.request == first.request {
		return first.images[first.index*size : (last.index+1)*size]
	}
	images := make([]float32, 0, len(batch)*size)
	for _, i := range batch {
		images = append(images, i.image()...)
	}
	return images
}

func (s *Service) deliver(batch []item, found passed) {
	g := batch[0].from
	s.observer.Batch(found.Pass)
	before := g.alarm()
	for k, i := range batch {
		a := found.answers[k]
		i.answers[i.index] = a
		if g.watch != nil {
			if err := g.watch.Observe(found.seen[k]); err != nil {
				s.options.Log.Error("the watch did not count an image", "error", err)
			}
		}
		s.answered.Add(1)
		s.observer.Answered(a.Expert, a.Cost, time.Since(i.queued))
		i.settle()
	}
	if alarm := g.alarm(); alarm != before && alarm != "" {
		s.options.Log.Error("ALARM", "what", alarm, "action", string(s.options.OnAlarm))
	}
}
