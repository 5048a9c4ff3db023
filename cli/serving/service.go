package serving

import (
	"context"
	"errors"
	"log/slog"
	"sync"
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
		experts: experts, model: experts.Model(), onAlarm: s.options.OnAlarm, ids: s.ids, holders: 1,
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

// Reload serves other experts from the next request on; requests under way are answered by those
// that they began with. Where it fails, the experts of before go on.
func (s *Service) Reload(experts Experts) error {
	next, err := s.generationOf(experts)
	if err == nil {
		s.mu.Lock()
		before := s.current
		s.current = next
		s.mu.Unlock()
		before.release()
	}
	s.observer.Reloaded(err == nil)
	return err
}

// end lets go of a generation that nobody holds any more.
func (s *Service) end(g *generation) {
	if g.watch != nil {
		if err := g.watch.Save(); err != nil {
			s.options.Log.Error("the watch's state was not saved", "error", err)
		}
	}
	if err := g.experts.Close(); err != nil {
		s.options.Log.Error("experts were not closed", "error", err)
	}
}

// Current is the cascade that answers now. The caller releases it, and its images and answers
// belong to this one, whatever is loaded meanwhile.
func (s *Service) Current() Current {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.hold()
	return Current{s, s.current}
}

// Label takes the label of an answered image.
func (s *Service) Label(id string, class int) error {
	held := s.Current()
	defer held.Release()
	if held.g.watch == nil {
		return ErrUnknownID
	}
	if class < 0 || class >= held.g.model.Classes {
		return fault.New(fault.Value, "the label is %d, expected a class from 0 to %d", class,
			held.g.model.Classes-1)
	}
	return held.g.watch.Label(id, class)
}

// State is what metrics and the status page show.
func (s *Service) State() State {
	held := s.Current()
	defer held.Release()
	state := State{Queued: s.queue.length(), Draining: s.isDraining()}
	if held.g.watch != nil {
		state.Monitor = held.g.watch.Report()
	}
	switch alarm := held.g.alarm(); {
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
	images := make([]float32, 0, len(batch)*g.model.size())
	for _, i := range batch {
		images = append(images, i.image()...)
	}
	return g.pass(images, len(batch))
}

func (s *Service) deliver(batch []item, found passed) {
	g := batch[0].from
	s.observer.Batch(len(batch), found.escalated, found.audited, found.light, found.heavy)
	before := g.alarm()
	for k, i := range batch {
		a := found.answers[k]
		i.answers[i.index] = a
		if g.watch != nil {
			g.watch.Observe(found.seen[k])
		}
		s.observer.Answered(a.Expert, a.Cost, time.Since(i.queued))
		i.settle()
	}
	if alarm := g.alarm(); alarm != before && alarm != "" {
		s.options.Log.Error("ALARM", "what", alarm, "action", string(s.options.OnAlarm))
	}
}

// Current is a cascade that its holder keeps in memory until Release.
type Current struct {
	s *Service
	g *generation
}

// Model describes the cascade.
func (c Current) Model() Model { return c.g.model }

// Prepare decodes and preprocesses one encoded image to [C, H, W] floats.
func (c Current) Prepare(ctx context.Context, encoded []byte) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.g.experts.Prepare(encoded)
}

// Answer queues images [n, C, H, W] and waits for their answers, in order.
//
// Errors: shape (too few or too many numbers), value (more images than the queue holds), ErrBusy
// where the queue is full, ErrDraining where the server ends, the context's where the deadline
// passed or the caller went, and those of the experts.
func (c Current) Answer(ctx context.Context, images []float32, n int) ([]Answer, error) {
	m := c.g.model
	if !m.fits(len(images), n) {
		return nil, fault.New(fault.Shape, "%d numbers were given for %d images, expected "+
			"[images, %d, %d, %d] of at least one image", len(images), n, m.Channels, m.Height,
			m.Width)
	}
	r := &request{
		ctx: ctx, from: c.g, images: images, queued: time.Now(), answers: make([]Answer, n),
		left: n, done: make(chan struct{}),
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.s.queue.put(r); err != nil {
		return nil, err
	}
	c.s.observer.Queue(c.s.queue.length())
	select {
	case <-r.done:
		return r.answers, r.err
	case <-ctx.Done():
		c.s.queue.remove(r)
		return nil, ctx.Err()
	}
}

// Release lets go of the cascade.
func (c Current) Release() { c.g.release() }
