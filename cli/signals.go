package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"agflow/bridge/ipcfile"
	"agflow/bridge/pyhost"
)

// A hosted call that does not end by itself after the first signal is interrupted again, for what
// swallowed the first interrupt, and its process ends at last.
const (
	patience    = 1500 * time.Millisecond
	repeatAfter = 500 * time.Millisecond
)

// signals is what this process has received, and whom to tell.
var signals struct {
	received atomic.Int32 // number of the first signal, 0 for none

	mu        sync.Mutex
	interrupt func(syscall.Signal) // ends the hosted call that runs; nil for none
}

// endOnSignal makes SIGINT and SIGTERM end the process with their status: a hosted call by
// interrupting it, everything else at once, because no step leaves anything half-written. A second
// signal ends a hosted call at once, too.
func endOnSignal() {
	arrived := make(chan os.Signal, 2)
	signal.Notify(arrived, os.Interrupt, syscall.SIGTERM)
	go func() {
		number := (<-arrived).(syscall.Signal)
		signals.received.Store(int32(number))
		signals.mu.Lock()
		interrupt := signals.interrupt
		signals.mu.Unlock()
		if interrupt != nil {
			go repeat(func() { interrupt(number) })
			select {
			case <-arrived:
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

// interruptible runs a hosted call. Whatever it returns after a signal (an interrupt may be
// swallowed, or become another exception) is that it was interrupted.
func interruptible(interrupt func(syscall.Signal), call func() (string, error)) (string, error) {
	setInterrupt(interrupt)
	answer, err := call()
	if number := signals.received.Load(); number != 0 {
		pyhost.EndDescendants()
		return "", interrupted(number)
	}
	setInterrupt(nil)
	return answer, err
}

func setInterrupt(interrupt func(syscall.Signal)) {
	signals.mu.Lock()
	defer signals.mu.Unlock()
	signals.interrupt = interrupt
}

// interrupted is the error of a process that received a signal.
type interrupted syscall.Signal

func (i interrupted) Error() string {
	if syscall.Signal(i) == syscall.SIGTERM {
		return "terminated"
	}
	return "interrupted"
}
