// Package serving has what a cascade in service is made of: what is served, the answer to an image,
// and who is told what happens.
//
// The handlers of package web know a cascade by the interface [Cascade] alone.
package serving

import (
	"context"
	"errors"
	"time"

	"agflow/core/routing"
	"agflow/core/routing/monitor"
)

var (
	// ErrBusy says that the queue is full.
	ErrBusy = errors.New("the queue of images is full; send the request again later")
	// ErrDraining says that the server ends and takes no further images.
	ErrDraining = errors.New("the server is ending and takes no further images; send the request " +
		"to another one")
	// ErrUnknownID says that no label is awaited for an id.
	ErrUnknownID = error(monitor.ErrUnknownID)
)

// Model describes the cascade that is served.
type Model struct {
	Name     string // the folder's
	Revision string // a short checksum
	Runtime  string // such as "onnxruntime 1.32.0"

	Channels, Height, Width int
	Classes                 int
	ClassNames              []string // nil where unknown
	MaxBatch                int
	Router                  routing.Router // as calibrated: threshold, prior, ledger, counts
	Cost                    routing.Cost   // of one image
}

// Answer is the cascade's answer to one image.
type Answer struct {
	ID          string    // of the answer, for a label that comes later
	Logits      []float32 // [K]; of an escalated image the heavy expert's, or the ensemble's
	Class       int
	Probability float64 // softmax of Logits at Class
	Expert      string  // "light", "heavy" or "ensemble"
	Prior       float32
	Cost        float64 // charged for this image, its audit too, over the heavy expert's
	Audited     bool
}

// Held is a cascade that its holder keeps in memory until Release: what is prepared by it and what
// it answers belong together, whatever is loaded meanwhile.
type Held interface {
	Model() Model
	// Prepare decodes and preprocesses one encoded image to [C, H, W] floats. A bad image is an
	// error of code value.
	Prepare(ctx context.Context, encoded []byte) ([]float32, error)
	// Answer queues images [n, C, H, W] and waits for their answers, in order. Errors: ErrBusy
	// where the queue is full, ErrDraining where the server ends, ctx's error where the deadline
	// passed or the caller went. The images must not be changed later, either.
	Answer(ctx context.Context, images []float32, n int) ([]Answer, error)
	Release()
}

// Cascade is what the handlers serve.
type Cascade interface {
	// Hold returns the cascade that answers now.
	Hold() Held
	// Label takes the label of an answered image; ErrUnknownID where none such is awaited.
	Label(id string, class int) error
	// State returns what metrics and the status page show.
	State() State
}

// State is that of a server at one moment.
type State struct {
	Ready, Draining bool
	NotReady        string // why, in words
	Queued          int    // images that wait
	Monitor         any    // JSON-ready report of the monitor, nil for none
}

// Pass is what a batch was, and how long it took.
type Pass struct {
	Images   int
	Requests int // whose images, or some of them, it has
	// images that were sent to the heavy expert: because they escalated, and for an audit alone
	Escalated, Audited int
	// since the requests were queued, in all; gathering the images; both experts; deciding, and
	// reading the answers
	Queued, Input, Light, Heavy, Output time.Duration
}

// Observer is told what happens to images.
type Observer interface {
	// Batch reports a batch that was answered.
	Batch(Pass)
	// Answered reports one image, waited from its queueing to its answer.
	Answered(expert string, cost float64, waited time.Duration)
	// Refused reports a refused request: "busy", "draining", "deadline", "cancelled", "invalid",
	// "too_large" or "unauthorized".
	Refused(reason string)
	Queue(images int)
	Reloaded(ok bool)
}
