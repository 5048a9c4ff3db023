package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"agflow/cli/serving"
)

// exchange is a request that is being answered: the writer of its answer, and what the log and the
// metrics say of it.
type exchange struct {
	http.ResponseWriter
	limits  Limits
	began   time.Time
	status  int // 0 until the answer's header is written
	images  int
	experts map[string]int // images by the expert that answered
	id      string
	failure error // of the server
}

// WriteHeader keeps the status. The time to write begins here: the answer may have taken long.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
		// A writer without a connection, as in tests, has no deadline.
		http.NewResponseController(x.ResponseWriter).
			SetWriteDeadline(time.Now().Add(x.limits.Write))
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(content []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	return x.ResponseWriter.Write(content)
}

// answered keeps what the log says of answers.
func (x *exchange) answered(answers []serving.Answer) {
	x.images = len(answers)
	x.experts = map[string]int{}
	for _, a := range answers {
		x.experts[a.Expert]++
	}
	if x.id == "" && len(answers) == 1 {
		x.id = answers[0].ID
	}
}

// deadline is the context of a request's computation: the shorter of the server's limit and, where
// the client gave one, its own. Both count from the request's header.
func (x *exchange) deadline(r *http.Request, own time.Duration) (context.Context, func()) {
	return context.WithDeadline(r.Context(), x.began.Add(min(own, x.limits.Answer)))
}

// timeoutHeader says in seconds how long a client waits.
const timeoutHeader = "Request-Timeout"

// ownTimeout returns the client's Request-Timeout, the server's limit where there is none.
func (x *exchange) ownTimeout(r *http.Request) (time.Duration, error) {
	text := r.Header.Get(timeoutHeader)
	if text == "" {
		return x.limits.Answer, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0) {
		return 0, invalid("%s is %.40q, expected a number of seconds above 0", timeoutHeader, text)
	}
	return time.Duration(min(seconds, x.limits.Answer.Seconds()) * float64(time.Second)), nil
}

// ServeHTTP answers a request, whatever happens in the handler, and reports it.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, limits: s.Limits, began: time.Now()}
	defer s.report(x, r)
	defer s.recover(x)
	if r.ContentLength != 0 {
		// Also of a body that nobody reads: the connection can't be used again before its end.
		http.NewResponseController(w).SetReadDeadline(x.began.Add(s.Limits.ReadBody))
	}
	s.routes.ServeHTTP(x, r)
}

// recover turns a panic of a handler into status 500.
func (s *server) recover(x *exchange) {
	cause := recover()
	if cause == nil {
		return
	}
	x.failure = fmt.Errorf("a defect in agflow: %v\n%s", cause, debug.Stack())
	if x.status != 0 {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	s.refused(x, x.failure)
}

// refused sends the refusal for an error, where no answer was begun.
func (s *server) refused(x *exchange, err error) {
	refusal := refusalOf(err)
	x.failure = refusal.cause
	if reason := reasons[refusal.status]; reason != "" {
		s.metrics.Refused(reason)
	}
	if x.status == 0 {
		refusal.write(x)
	}
}

// report counts the request and logs its line.
func (s *server) report(x *exchange, r *http.Request) {
	took := time.Since(x.began)
	route := routeOf(r)
	s.metrics.request(route, x.status, took)
	level := slog.LevelInfo
	switch {
	case x.failure != nil:
		level = slog.LevelError
	case slices.Contains(quiet, route):
		level = slog.LevelDebug
	}
	line := []slog.Attr{
		slog.String("method", cut(r.Method)), slog.String("path", cut(r.URL.Path)),
		slog.Int("status", x.status), slog.Float64("ms", float64(took.Microseconds())/1000),
	}
	if x.images > 0 {
		line = append(line, slog.Int("images", x.images))
		for _, expert := range experts {
			if n := x.experts[expert]; n > 0 {
				line = append(line, slog.Int(expert, n))
			}
		}
	}
	if x.id != "" {
		line = append(line, slog.String("id", cut(x.id)))
	}
	if x.failure != nil {
		line = append(line, slog.String("error", x.failure.Error()))
	}
	s.Log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", line...)
}

// routeOf is the pattern of a request's path, of which there are few.
func routeOf(r *http.Request) string {
	_, path, found := strings.Cut(r.Pattern, " ")
	if !found {
		return "other"
	}
	return strings.TrimSuffix(path, "{$}")
}

// maxShown is how much of a client's text stands in a log or a sentence.
const maxShown = 100

func cut(text string) string {
	if len(text) > maxShown {
		return strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}
