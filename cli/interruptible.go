//go:build python

package main

import (
	"syscall"

	"agflow/bridge/pyhost"
)

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

// drainOnSignal makes the first signal call drain instead, which returns at once; the second one
// ends the process.
func drainOnSignal(drain func()) {
	signals.mu.Lock()
	defer signals.mu.Unlock()
	signals.drain = drain
}
