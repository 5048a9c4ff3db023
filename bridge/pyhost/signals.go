//go:build python

package pyhost

/*
#include <Python.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

// The actions of Go's runtime, which keeps SIGINT and SIGTERM.
static struct sigaction agflow_interrupt, agflow_terminate;

static void agflow_keep_actions(void) {
	sigaction(SIGINT, NULL, &agflow_interrupt);
	sigaction(SIGTERM, NULL, &agflow_terminate);
}

static void agflow_nothing(int number) {}

// Gives the signals back to Go, and takes the last real-time signal for agflow_wake: its action has
// no SA_RESTART, so that it ends every system call that waits, a wait for a lock among them.
static void agflow_restore_actions(void) {
	struct sigaction wake;
	sigaction(SIGINT, &agflow_interrupt, NULL);
	sigaction(SIGTERM, &agflow_terminate, NULL);
	memset(&wake, 0, sizeof wake);
	wake.sa_handler = agflow_nothing;
	wake.sa_flags = SA_ONSTACK;
	sigaction(SIGRTMAX, &wake, NULL);
}

static void agflow_wake(pthread_t thread) { pthread_kill(thread, SIGRTMAX); }

static volatile int agflow_status;

static void agflow_end(int number) { _exit(agflow_status); }

// Makes abort() end the process with a status, without Go's dump of all registers.
static void agflow_end_on_abort(int status) {
	struct sigaction end;
	agflow_status = status;
	memset(&end, 0, sizeof end);
	end.sa_handler = agflow_end;
	end.sa_flags = SA_ONSTACK;
	sigaction(SIGABRT, &end, NULL);
}
*/
import "C"

import (
	"runtime"
	"syscall"
	"time"

	python3 "github.com/DataDog/go-python3"
)

// runKeepingActions runs Python code that installs signal handlers; the signals stay Go's. Python's
// own actions stand for a moment only.
func runKeepingActions(code string) bool {
	C.agflow_keep_actions()
	status := python3.PyRun_SimpleString(code)
	C.agflow_restore_actions()
	return status == 0
}

// Interrupt lets Python handle a signal as if it had received it: KeyboardInterrupt in the running
// call at its next bytecode, which it is woken for if it sleeps or waits. A long operation in C
// ends first. Where an interrupt must not be raised, in an import or outside of a call, the process
// ends at once. From the first interrupt on abort() ends the process without a dump: libraries in
// C++ call it where an exception leaves a function that must not raise.
//
// It does nothing once the call has ended.
func (p *Interpreter) Interrupt(number syscall.Signal) {
	p.interrupting.Lock()
	defer p.interrupting.Unlock()
	if !p.calling {
		return
	}
	C.agflow_end_on_abort(C.int(Status(number)))
	C.PyErr_SetInterruptEx(C.int(number))
	// Several times: the first may come while the handler of the signal itself runs in Python's
	// thread, after which its system call goes on.
	for range wakes {
		C.agflow_wake(p.thread)
		time.Sleep(betweenWakes)
	}
	// A request for the lock makes a computing thread check for signals: CPython before 3.13
	// announces a signal to its main thread only when that thread itself received it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	python3.PyGILState_Release(python3.PyGILState_Ensure())
}

const (
	wakes        = 5
	betweenWakes = 10 * time.Millisecond
)

// setCalling says whether a call runs that Interrupt may reach.
func (p *Interpreter) setCalling(calling bool) {
	p.interrupting.Lock()
	defer p.interrupting.Unlock()
	p.calling = calling
}
