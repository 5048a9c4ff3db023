// Package fault is the one error type of agflow's Go code: a stable code that callers in other
// languages map to their own exceptions, and one sentence with the thing, what was found, what was
// expected and the cure.
//
// It must not import any other package of agflow, log, print or end the process.
package fault

import (
	"errors"
	"fmt"
)

// Code is the class of an error. The text of every error begins with it, so codes are part of the
// public contract.
type Code string

const (
	Value     Code = "value"     // an argument out of its range, or an unknown name
	Shape     Code = "shape"     // rows, channels or lengths that do not fit together
	Dtype     Code = "dtype"     // an element type that is not read here
	Nonfinite Code = "nonfinite" // NaN or an infinity in data
	Empty     Code = "empty"     // no input
	Layer     Code = "layer"     // an unknown layer, or one that lacks what was asked of it
	Budget    Code = "budget"    // a budget that no plan can meet
	File      Code = "file"      // a corrupt or foreign file
	IO        Code = "io"        // the operating system refused: missing file, full disk
	Closed    Code = "closed"    // a session that is closed or was never opened
	Cancelled Code = "cancelled" // the caller asked the call to end
	Internal  Code = "internal"  // a defect of agflow itself: a recovered panic
)

// Error is an error with a code. Text is the sentence alone, without the code.
type Error struct {
	Code  Code
	Text  string
	cause error
}

// New makes an error from a format that is read as fmt.Errorf reads it, %w included.
func New(code Code, format string, args ...any) *Error {
	cause := fmt.Errorf(format, args...)
	return &Error{Code: code, Text: cause.Error(), cause: cause}
}

// Error returns "agflow:<code>: <sentence>".
func (e *Error) Error() string { return "agflow:" + string(e.Code) + ": " + e.Text }

// Unwrap returns the error of the format, for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf returns the code of the outermost *Error that err holds, Internal when it holds none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// Sentence returns the text of an error without its code.
func Sentence(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Text
	}
	return err.Error()
}

// Recover, deferred, turns a panic of the surrounding function into its error result:
//
//	func Work() (err error) {
//		defer fault.Recover(&err)
//
// A panic with an *Error, by which loops end early, is that error. It never panics again. Fatal
// errors of the Go runtime (bad addresses, exhausted memory) cannot be recovered: validate sizes
// and addresses before they are used.
func Recover(err *error) {
	cause := recover()
	if cause == nil || err == nil {
		return
	}
	if known, is := cause.(*Error); is {
		*err = known
	} else {
		*err = New(Internal,
			"a defect in agflow stopped this call: %v; "+
				"please report it with the call that caused it",
			cause)
	}
}
