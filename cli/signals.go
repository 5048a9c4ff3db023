package main

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"agflow/bridge/ipcfile"
	"agflow/bridge/pyhost"
	"agflow/cli/arrivals"
)

// A hosted call that does not end by itself after the first signal is interrupted again, for what
// swallowed the first interrupt, and its process ends at last.
const (
	patience    = time.Second
	repeatAfter = 400 * time.Millisecond
)

// signals is what this process has received, and whom to tell.
var signals struct {
	received atomic.Int32  // number of the first signal, 0 for none
	disarmed chan struct{} // closed when arrivals.Signals was closed and held nothing

	mu        sync.Mutex
	interrupt func(syscall.Signal) // ends the hosted call that runs; nil for none
	drain     func()               // ends a server, in its own time; nil for none
}

// endOnSignal makes SIGINT and SIGTERM end the process with their status: a hosted call by
// interrupting it, everything else at once, because no step leaves anything half-written. A second
// signal ends a hosted call at once, too. A server drains at the first signal and ends by itself.
func endOnSignal() {
	signals.disarmed = make(chan struct{})
	go func() {
		number, isSignal := (<-arrivals.Signals).(syscall.Signal)
		if !isSignal {
			close(signals.disarmed)
			return
		}
		signals.mu.Lock()
		interrupt, drain := signals.interrupt, signals.drain
		signals.mu.Unlock()
		if drain != nil {
			drain()
			number, _ = (<-arrivals.Signals).(syscall.Signal)
		}
		signals.received.Store(int32(number))
		if interrupt != nil {
			go repeat(func() { interrupt(number) })
			select {
			case <-arrivals.Signals:
			case <-time.After(patience):
			}
		}
		pyhost.EndDescendants()
		ipcfile.RemoveTemporaries()
		fmt.Fprintln(os.Stderr, "agflow:", interrupted(number))
		os.Exit(pyhost.Status(number))
	}()
}

// repeat calls an action again and again; each may block.
func repeat(action func()) {
	for {
		go action()
		time.Sleep(repeatAfter)
	}
}

// interrupted is the error of a process that received a signal.
type interrupted syscall.Signal

func (i interrupted) Error() string {
	if syscall.Signal(i) == syscall.SIGTERM {
		return "terminated"
	}
	return "interrupted"
}
