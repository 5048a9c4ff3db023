//go:build !python

package main

import "errors"

var errNoPython = pythonError(errors.New(
	"this agflow was built without Python, so it has the steps on files only: install it with " +
		"`pip install agflow` into a CPython that has a shared libpython, or run the step with " +
		"`import agflow`"))

func interpreter(string) (string, error) { return "", errNoPython }

func host(string, string, string, string) (string, error) { return "", errNoPython }
