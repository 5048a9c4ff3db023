package web

import (
	"log/slog"
	"net/http"
	"time"
)

// Limits bound what one client can take of the server. All of them are positive.
type Limits struct {
	Body     int64 // bytes of a request's body, as sent and decompressed
	Header   int   // bytes of a request's header
	Pixels   int64 // of an encoded image, by its own header
	Requests int   // with a body, that are read or answered at once

	ReadHeader time.Duration
	ReadBody   time.Duration
	Idle       time.Duration // of a connection between two requests
	Answer     time.Duration // from the request's header to its answer; clients can ask for less
	Write      time.Duration
}

// StandardLimits suit images of some megapixels and experts that take less than a second.
var StandardLimits = Limits{
	Body:     64 << 20,
	Header:   64 << 10,
	Pixels:   50_000_000, // 150 MB, decoded as RGB
	Requests: 2048,       // more than images that wait by default

	ReadHeader: 10 * time.Second,
	ReadBody:   30 * time.Second,
	Idle:       2 * time.Minute,
	Answer:     30 * time.Second,
	Write:      30 * time.Second,
}

// Options of the handlers.
type Options struct {
	Token   string // that clients must bear; "" for none
	Version string // of the program, for metadata and metrics
	Limits  Limits
	Log     *slog.Logger // gets one line a request, nothing of the images
}

// NewServer returns the server for a handler of [New], without an address.
func NewServer(handler http.Handler, o Options) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: o.Limits.ReadHeader,
		IdleTimeout:       o.Limits.Idle,
		MaxHeaderBytes:    o.Limits.Header,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
}
