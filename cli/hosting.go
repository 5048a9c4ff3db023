//go:build python

package main

import (
	_ "agflow/bridge/host" // exports the core to the Python in this process
	"agflow/bridge/pyhost"
)

// host starts Python, runs module.function(argument) and ends Python, so that all it printed is out.
func host(program, module, function, argument string) (string, error) {
	program, err := pyhost.Find(program)
	if err != nil {
		return "", pythonError(err)
	}
	python, err := pyhost.Start(program)
	if err != nil {
		return "", pythonError(err)
	}
	answer, err := python.Call(module, function, argument)
	if closing := python.Close(); err == nil && closing != nil {
		return "", pythonError(closing)
	}
	return answer, err
}

// hostedVersion is the Python version this program hosts.
func hostedVersion() string { return pyhost.Version }
