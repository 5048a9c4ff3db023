//go:build !python

package main

import "github.com/urfave/cli/v2"

// serveCascade replaces this process by the program that hosts Python.
func serveCascade(c *cli.Context) (outcome, error) {
	if _, err := serveOptionsOf(c); err != nil {
		return outcome{}, err
	}
	_, err := host(python(c), "", "", "")
	return outcome{}, err
}
