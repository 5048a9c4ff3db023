//go:build !python

package main

import (
	"strings"
	"testing"
)

func TestWithoutPythonModelStepsNameTheCure(t *testing.T) {
	_, complaint, status := agflow("run")
	if status != exitPython || !strings.Contains(complaint, "built without Python") ||
		!strings.Contains(complaint, "pip install agflow") {
		t.Error(status, complaint)
	}
	out, _, status := agflow("doctor")
	if status != exitPython ||
		!strings.Contains(out, "failed  interpreter  this agflow was built without Python") {
		t.Error(status, out)
	}
}
