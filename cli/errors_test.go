package main

import (
	"errors"
	"fmt"
	"testing"

	"agflow/bridge/pyhost"
	"agflow/core/fault"
)

func TestCodesMapToStatuses(t *testing.T) {
	for code, want := range map[fault.Code]int{
		fault.Value: exitUsage, fault.Shape: exitBadData, fault.Dtype: exitBadData,
		fault.Nonfinite: exitBadData, fault.Empty: exitBadData, fault.Layer: exitBadData,
		fault.Budget: exitBadData, fault.File: exitBadData, fault.IO: exitFailed,
		fault.Closed: exitFailed, fault.Internal: exitFailed,
		"device": exitBadData, "model": exitBadData,
	} {
		inGo := fmt.Errorf("outer: %w", fault.New(code, "text"))
		inPython := &pyhost.Error{Type: "AgflowError", Code: string(code)}
		if exitStatus(inGo) != want || exitStatus(inPython) != want {
			t.Errorf("%s: %d in Go, %d in Python, want %d",
				code, exitStatus(inGo), exitStatus(inPython), want)
		}
	}
	for err, want := range map[error]int{
		errors.New("plain"):                       exitFailed,
		&pyhost.Error{Type: "ZeroDivisionError"}:  exitPython,
		&pyhost.Error{Type: "KeyboardInterrupt"}:  exitInterrupted,
		pythonError(errors.New("no interpreter")): exitPython,
	} {
		if got := exitStatus(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}
