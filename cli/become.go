//go:build linux && !python

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// become replaces this process by another program. No signal is lost: one that has come ends this
// program, and until the other program listens, a later one ends the process without a word.
func become(program string) error {
	signal.Stop(signals.arrived) // returns when what has come is in the channel
	close(signals.arrived)
	<-signals.disarmed
	return syscall.Exec(program, os.Args, os.Environ())
}
