//go:build linux && !python

package main

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"agflow/cli/arrivals"

	"golang.org/x/sys/unix"
)

// become replaces this process by another program. No signal is lost: one that has come ends this
// program, and a later one waits until the other program takes it.
func become(program string) error {
	runtime.LockOSThread() // whose mask the other program inherits
	var both unix.Sigset_t
	both.Val[0] = 1<<(unix.SIGINT-1) | 1<<(unix.SIGTERM-1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &both, nil); err != nil {
		return err
	}
	signal.Stop(arrivals.Signals) // returns when what has come is in the channel
	close(arrivals.Signals)
	<-signals.disarmed
	return syscall.Exec(program, os.Args, os.Environ())
}
