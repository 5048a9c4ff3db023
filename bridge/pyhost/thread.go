//go:build python

package pyhost

import (
	"runtime"

	python3 "github.com/DataDog/go-python3"
)

// Thread is a thread that Python runs on: its main thread, which is the [Interpreter], or another.
type Thread interface{ do(f func()) }

// worker is a thread of Python beside its main thread. Like that it never ends: libraries keep
// pools and destructors by thread.
type worker struct{ work chan func() }

// NewThread starts a further thread of Python, which must be idle when Python is closed.
func (p *Interpreter) NewThread() Thread {
	w, started := worker{make(chan func())}, make(chan struct{})
	go w.serve(started)
	<-started // a thread that came after the end of Python would fall into it
	return w
}

func (w worker) serve(started chan<- struct{}) {
	runtime.LockOSThread()
	python3.PyGILState_Ensure()
	state := python3.PyEval_SaveThread()
	close(started)
	for f := range w.work {
		python3.PyEval_RestoreThread(state)
		f()
		state = python3.PyEval_SaveThread()
	}
}

// do runs f on this thread with the global lock held, and waits for it.
func (w worker) do(f func()) { wait(w.work, f) }

// wait hands f to the goroutine that takes work, and waits for it.
func wait(work chan<- func(), f func()) {
	done := make(chan struct{})
	work <- func() {
		defer close(done)
		f()
	}
	<-done
}
