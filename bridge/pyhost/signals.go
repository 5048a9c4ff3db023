//go:build python

package pyhost

/*
#include <pthread.h>
#include <signal.h>

// Ends a system call of a sleeping thread. Go's runtime owns SIGURG and makes nothing of an extra
// one.
static void agflow_wake(pthread_t thread) { pthread_kill(thread, SIGURG); }
*/
import "C"

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	python3 "github.com/DataDog/go-python3"
)

// forwardSignals makes the first SIGINT or SIGTERM Python's, and lets the second end the process.
func (p *Interpreter) forwardSignals() {
	arrived := make(chan os.Signal, 2)
	// Takes the signals from earlier receivers. SIGINT also from Python, whose handler has replaced
	// Go's: without this, Go believes that its own still stands.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	signal.Notify(arrived, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-arrived
		go p.Interrupt()
		<-arrived
		os.Exit(Interrupted)
	}()
}

// Interrupt raises KeyboardInterrupt in the running call at its next bytecode, and wakes it if it
// sleeps; a long operation in C ends first. It returns when Python has taken notice.
func (p *Interpreter) Interrupt() {
	p.interrupting.Lock()
	defer p.interrupting.Unlock()
	if p.closed {
		return
	}
	python3.PyErr_SetInterrupt()
	C.agflow_wake(p.thread)
	// A request for the lock makes a computing thread check for signals: CPython before 3.13
	// announces a signal to its main thread only when that thread itself received it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	python3.PyGILState_Release(python3.PyGILState_Ensure())
}
