package main

import (
	"errors"
	"fmt"
	"syscall"

	"agflow/bridge/pyhost"
	"agflow/core/fault"
)

// The exit statuses.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitBadData = 3
	exitPython  = 4
	exitCheck   = 5
)

var exitInterrupted = pyhost.Status(syscall.SIGINT)

// statusError is an error whose exit status is known where it arises.
type statusError struct {
	error
	status int
}

func (e statusError) Unwrap() error { return e.error }

func usageError(format string, values ...any) error {
	return statusError{fmt.Errorf(format, values...), exitUsage}
}

// pythonError is an error of the hosting itself: no interpreter, the wrong version, a Python that
// does not start.
func pythonError(err error) error { return statusError{err, exitPython} }

// exitStatus maps an error to the status of the process.
func exitStatus(err error) int {
	var known statusError
	var python *pyhost.Error
	var signal interrupted
	switch {
	case errors.As(err, &known):
		return known.status
	case errors.As(err, &signal):
		return pyhost.Status(syscall.Signal(signal))
	case !errors.As(err, &python):
		return codeStatus(fault.CodeOf(err))
	case python.IsInterrupt():
		return exitInterrupted
	case python.Code != "":
		return codeStatus(fault.Code(python.Code))
	}
	return exitPython
}

// codeStatus maps a code of package fault, or one of the codes that only Python has.
func codeStatus(code fault.Code) int {
	switch code {
	case fault.Value:
		return exitUsage
	case fault.Shape, fault.Dtype, fault.Nonfinite, fault.Empty, fault.Layer, fault.Budget,
		fault.File, "device", "model":
		return exitBadData
	}
	return exitFailed
}

// sentence is what a person reads of an error.
func sentence(err error) string {
	var known *fault.Error
	var python *pyhost.Error
	switch {
	case errors.As(err, &known):
		return known.Text
	case !errors.As(err, &python):
		return err.Error()
	case python.IsInterrupt():
		return "interrupted"
	case python.Code != "":
		return python.Message
	}
	return python.Error() +
		" (--debug shows where in Python; `agflow doctor` checks the installation)"
}
