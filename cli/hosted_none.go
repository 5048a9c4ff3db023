//go:build !linux && !python

package main

import (
	"fmt"
	"runtime"
)

var errFilesOnly = pythonError(fmt.Errorf("agflow on %s/%s has the steps on files only: run the "+
	"steps on models on Linux; the files that they write can be read here",
	runtime.GOOS, runtime.GOARCH))

func interpreter(string) (string, error) { return "", errFilesOnly }

func host(string, string, string, string) (string, error) { return "", errFilesOnly }
