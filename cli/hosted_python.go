//go:build python

package main

import (
	_ "agflow/bridge/host" // exports the core to the Python in this process
	"agflow/bridge/pyhost"
)

// interpreter chooses the Python to host. It refuses a version that this program is not linked to.
func interpreter(asked string) (string, error) {
	program, err := pyhost.Find(asked)
	if err == nil {
		err = pyhost.CheckVersion(program, pyhost.Version)
	}
	if err != nil {
		return "", pythonError(err)
	}
	return program, nil
}

// host starts Python, runs module.function(argument) and ends Python, which flushes its output.
func host(asked, module, function, argument string) (string, error) {
	program, err := interpreter(asked)
	if err != nil {
		return "", err
	}
	pyhost.ForgetPreload()
	python, err := pyhost.Start(program)
	if err != nil {
		return "", pythonError(err)
	}
	answer, err := interruptible(python.Interrupt, func() (string, error) {
		return python.Call(module, function, argument)
	})
	if closing := python.Close(); err == nil && closing != nil {
		return "", pythonError(closing)
	}
	return answer, err
}
