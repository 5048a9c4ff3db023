package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"agflow/cli/serving"
	"agflow/core/fault"
	"agflow/core/strictjson"
)

// statusClosed is what nginx logs where the client went before the answer; no client sees it.
const statusClosed = 499

// retryAfter is what a client waits before it sends a refused request again: a queue is worked off
// in about a second.
const retryAfter = time.Second

// refusal is an answer that is no success.
type refusal struct {
	status int
	text   string // one sentence for the client
	cause  error  // for the log alone; nil for none
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status: status, text: fmt.Sprintf(format, args...)}
}

// invalid refuses a request that must be another one.
func invalid(format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, format, args...)
}

// reasons are the words of [serving.Observer] for statuses.
var reasons = map[int]string{
	http.StatusBadRequest:            "invalid",
	http.StatusUnauthorized:          "unauthorized",
	http.StatusForbidden:             "unauthorized",
	http.StatusNotFound:              "invalid",
	http.StatusMethodNotAllowed:      "invalid",
	http.StatusRequestTimeout:        "deadline",
	http.StatusRequestEntityTooLarge: "too_large",
	http.StatusUnsupportedMediaType:  "invalid",
	http.StatusTooManyRequests:       "busy",
	statusClosed:                     "cancelled",
	http.StatusServiceUnavailable:    "draining",
	http.StatusGatewayTimeout:        "deadline",
}

// refusalOf says what a client gets for an error.
func refusalOf(err error) *refusal {
	var known *refusal
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, serving.ErrBusy):
		return refuse(http.StatusTooManyRequests, "%v", fault.Sentence(err))
	case errors.Is(err, serving.ErrDraining):
		return refuse(http.StatusServiceUnavailable, "%v", fault.Sentence(err))
	case errors.Is(err, serving.ErrUnknownID):
		return refuse(http.StatusNotFound, "%v", fault.Sentence(err))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "the body did not come in time; send it faster, "+
			"or less of it")
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(http.StatusGatewayTimeout, "there was no answer within the request's time; "+
			"send it again later, or with a longer Request-Timeout")
	case errors.Is(err, context.Canceled):
		return refuse(statusClosed, "the client closed the connection")
	case errors.As(err, &large):
		return tooLarge(large.Limit)
	}
	switch fault.CodeOf(err) {
	case fault.Value, fault.Shape, fault.Dtype, fault.Nonfinite, fault.Empty:
		return invalid("%s", fault.Sentence(err))
	}
	return &refusal{
		http.StatusInternalServerError, "the server failed on this request; its log says why", err,
	}
}

func tooLarge(limit int64) *refusal {
	return refuse(http.StatusRequestEntityTooLarge,
		"the body has more than %d bytes; send fewer images at once", limit)
}

// checkJSON refuses JSON that is longer than any sensible request: the strict reader is slow.
func checkJSON(text []byte, what string) error {
	if len(text) > strictjson.MaxBytes {
		return refuse(http.StatusRequestEntityTooLarge, "the JSON %s has %d bytes, expected at "+
			"most %d", what, len(text), strictjson.MaxBytes)
	}
	return nil
}

// write sends the refusal as JSON, with what its status asks of the header.
func (r *refusal) write(w http.ResponseWriter) {
	header := w.Header()
	switch r.status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", `Bearer realm="agflow"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		header.Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
	writeJSON(w, r.status, map[string]string{"error": r.text})
}

// writeJSON sends a value that JSON can hold.
func writeJSON(w http.ResponseWriter, status int, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(content)+1))
	w.WriteHeader(status)
	w.Write(append(content, '\n')) // a client that went is no error of ours
	return nil
}
