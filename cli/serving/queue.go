package serving

import (
	"context"
	"sync"
	"time"

	"agflow/core/fault"
)

// request is one caller's images on their way.
type request struct {
	ctx     context.Context
	from    *generation
	images  []float32 // [n, C, H, W]
	queued  time.Time
	answers []Answer
	left    int // images without an answer; of the goroutine that runs batches
	err     error
	done    chan struct{} // closed once all images have an answer, or err is set
}

// finish ends a request, once.
func (r *request) finish(err error) {
	if r.left > 0 {
		r.left, r.err = 0, err
		close(r.done)
	}
}

// settle counts an answered image.
func (r *request) settle() {
	if r.left == 1 {
		close(r.done)
	}
	r.left = max(0, r.left-1)
}

// item is one image of a request.
type item struct {
	*request
	index int
}

func (i item) image() []float32 {
	size := i.from.model.size()
	return i.images[i.index*size : (i.index+1)*size]
}

// queue holds the images that wait, from many callers for one goroutine.
type queue struct {
	limit int // greatest number of images

	mu      sync.Mutex
	waiting []item
	closed  bool
	changed chan struct{} // holds one where something has changed since the last look
}

func newQueue(limit int) *queue { return &queue{limit: limit, changed: make(chan struct{}, 1)} }

// put appends all images of a request, or none where there is no room for them.
func (q *queue) put(r *request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(r.answers)
	switch {
	case q.closed:
		return ErrDraining
	case n > q.limit:
		return fault.New(fault.Value, "the request has %d images, expected at most %d, which is "+
			"the queue's limit; send them in several requests", n, q.limit)
	case len(q.waiting)+n > q.limit:
		return ErrBusy
	}
	for i := range n {
		q.waiting = append(q.waiting, item{r, i})
	}
	q.tell()
	return nil
}

// remove takes what still waits of a request whose caller has gone.
func (q *queue) remove(r *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := q.waiting[:0]
	for _, i := range q.waiting {
		if i.request != r {
			kept = append(kept, i)
		}
	}
	clear(q.waiting[len(kept):])
	q.waiting = kept
}

// take returns the next batch, of one generation, full or as old as it may get; nil once the queue
// is closed and empty.
func (q *queue) take(maxWait time.Duration) []item {
	for {
		batch, wait, ended := q.look(maxWait)
		if batch != nil || ended {
			return batch
		}
		var late <-chan time.Time
		if wait > 0 {
			late = time.After(wait)
		}
		select {
		case <-q.changed:
		case <-late:
		}
	}
}

// look returns a batch that is due, or else how long the oldest image may still wait, 0 for none.
func (q *queue) look(maxWait time.Duration) (batch []item, wait time.Duration, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil, 0, q.closed
	}
	first := q.waiting[0]
	n := 0
	for n < len(q.waiting) && n < first.from.model.MaxBatch && q.waiting[n].from == first.from {
		n++
	}
	full := n == first.from.model.MaxBatch || n < len(q.waiting) || q.closed
	if wait = time.Until(first.queued.Add(maxWait)); !full && wait > 0 {
		return nil, wait, false
	}
	batch = append(batch, q.waiting[:n]...)
	clear(q.waiting[:n])
	if q.waiting = q.waiting[n:]; len(q.waiting) == 0 {
		q.waiting = nil // so that its memory ends with the burst
	}
	return batch, 0, false
}

// close lets take end once the queue is empty.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.tell()
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

func (q *queue) tell() {
	select {
	case q.changed <- struct{}{}:
	default: // it has been told already
	}
}
