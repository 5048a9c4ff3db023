// Package arrivals listens for the signals that end a command from the beginning of the process.
// Packages are initialised in the order of their paths once what they import is, and this one
// imports next to nothing: only Go's own start comes before it.
package arrivals

import (
	"os"
	"os/signal"
	"syscall"
)

// Signals receives SIGINT and SIGTERM; it holds two.
var Signals = listen()

func listen() chan os.Signal {
	arrived := make(chan os.Signal, 2)
	signal.Notify(arrived, os.Interrupt, syscall.SIGTERM)
	return arrived
}
