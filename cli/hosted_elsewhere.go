//go:build linux && !python

package main

import (
	"fmt"
	"os"

	"agflow/bridge/pyhost"
)

// interpreter chooses the Python to host.
func interpreter(asked string) (string, error) {
	program, err := pyhost.Find(asked)
	if err != nil {
		return "", pythonError(err)
	}
	return program, nil
}

// host replaces this process by the program that hosts Python, which reads the same arguments
// again. The process stays the same one, so signals reach it. It returns only with an error.
func host(asked, _, _, _ string) (string, error) {
	program, err := interpreter(asked)
	if err != nil {
		return "", err
	}
	description, err := pyhost.Describe(program)
	if signals.received.Load() != 0 {
		select {} // what ended the description ends this process, too, with its own status
	}
	if err != nil {
		return "", pythonError(err)
	}
	os.Setenv("AGFLOW_PYTHON", description.Executable)
	pyhost.Preload(description.Libpython)
	err = become(description.Host)
	return "", pythonError(fmt.Errorf("the program %s can't be started (%w): %s -m pip install "+
		"--force-reinstall --no-deps agflow", description.Host, err, program))
}
