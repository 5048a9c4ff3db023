//go:build !python

package main

import "errors"

var errNoPython = errors.New("this agflow was built without Python, so it has the steps on files only: install it with `pip install agflow` " +
	"into a CPython that has a shared libpython, or run the step with `import agflow`")

func host(program, module, function, argument string) (string, error) {
	return "", pythonError(errNoPython)
}

func hostedVersion() string { return "" }
