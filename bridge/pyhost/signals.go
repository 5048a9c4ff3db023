//go:build python

package pyhost

/*
#include <pthread.h>
#include <signal.h>

// Ends a system call of a sleeping thread. Go's runtime owns SIGURG and makes nothing of an extra one.
static void agflow_wake(pthread_t thread) { pthread_kill(thread, SIGURG); }
*/
import "C"

import (
	"os"
	"os/signal"
	"syscall"

	python3 "github.com/DataDog/go-python3"
)

// forwardSignals makes the first SIGINT or SIGTERM Python's, and lets the second end the process.
func (p *Interpreter) forwardSignals() {
	arrived := make(chan os.Signal, 2)
	signal.Ignore(os.Interrupt) // Python has replaced Go's handler; without this Go believes that it still stands
	signal.Notify(arrived, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-arrived
		p.Interrupt()
		<-arrived
		os.Exit(Interrupted)
	}()
}

// Interrupt raises KeyboardInterrupt in the running call at its next bytecode, and wakes it if it sleeps. It needs no
// lock: a long operation in C ends first.
func (p *Interpreter) Interrupt() {
	python3.PyErr_SetInterrupt()
	C.agflow_wake(p.thread)
}
