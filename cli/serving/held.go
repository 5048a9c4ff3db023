package serving

import (
	"context"
	"time"

	"agflow/core/fault"
)

// held is a generation in the hands of a caller.
type held struct {
	s *Service
	g *generation
}

// Model describes the cascade.
func (h held) Model() Model { return h.g.model }

// Prepare decodes and preprocesses one encoded image to [C, H, W] floats.
func (h held) Prepare(ctx context.Context, encoded []byte) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.g.experts.Prepare(encoded)
}

// Answer queues images [n, C, H, W] and waits for their answers, in order.
//
// Errors: shape (too few or too many numbers), value (more images than the queue holds), ErrBusy
// where the queue is full, ErrDraining where the server ends, the context's where the deadline
// passed or the caller went, and those of the experts.
func (h held) Answer(ctx context.Context, images []float32, n int) ([]Answer, error) {
	m := h.g.model
	if !m.fits(len(images), n) {
		return nil, fault.New(fault.Shape, "%d numbers were given for %d images, expected "+
			"[images, %d, %d, %d] of at least one image", len(images), n, m.Channels, m.Height,
			m.Width)
	}
	r := &request{
		ctx: ctx, from: h.g, images: images, queued: time.Now(), answers: make([]Answer, n),
		left: n, done: make(chan struct{}),
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := h.s.queue.put(r); err != nil {
		return nil, err
	}
	h.s.observer.Queue(h.s.queue.length())
	select {
	case <-r.done:
		return r.answers, r.err
	case <-ctx.Done():
		h.s.queue.remove(r)
		return nil, ctx.Err()
	}
}

// Release lets go of the cascade.
func (h held) Release() { h.g.release() }
