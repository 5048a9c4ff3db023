//go:build python

package pyhost

/*
#cgo pkg-config: python3
#include <Python.h>
#include <pthread.h>
*/
import "C"

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	python3 "github.com/DataDog/go-python3"
)

// Version is the Python version this program is linked to, such as "3.11".
var Version = fmt.Sprintf("%d.%d", C.PY_MAJOR_VERSION, C.PY_MINOR_VERSION)

//go:embed support.py
var support string

// Interpreter is the one Python of this process. One goroutine, bound to its thread for ever, is
// Python's main thread and runs all calls; the global lock is free between them. CPython can't be
// started a second time after Close.
type Interpreter struct {
	work      chan func()
	thread    C.pthread_t
	functions map[string]*python3.PyObject // of support.py

	interrupting sync.Mutex
	calling      bool
}

// Start starts Python as if program (the path of an interpreter, from Find) had been run: with its
// environment's packages. SIGINT and SIGTERM stay Go's: its program hands them on by Interrupt.
func Start(program string) (*Interpreter, error) {
	if err := CheckVersion(program, Version); err != nil {
		return nil, err
	}
	p := &Interpreter{work: make(chan func())}
	started := make(chan error)
	go p.serve(program, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Call runs module.function(argument) in Python and returns the text it returned. The error is an
// *Error when Python raised an exception.
func (p *Interpreter) Call(module, function, argument string) (string, error) {
	return p.ask(p, "call", module, function, argument)
}

// ask calls a function of support.py with texts and returns the text that it found. On the main
// thread [Interpreter.Interrupt] can end it.
func (p *Interpreter) ask(on Thread, function string, words ...string) (string, error) {
	var answer string
	var err error
	isMain := on == Thread(p)
	if isMain {
		p.setCalling(true)
	}
	on.do(func() { answer, err = p.callWithLock(function, words...) })
	if isMain {
		p.setCalling(false)
	}
	if err != nil {
		return "", err
	}
	return read(strings.Join(words[:min(2, len(words))], "."), answer)
}

// read returns the result in the JSON text that support.py made of a call, or its exception.
func read(name, answer string) (string, error) {
	var outcome struct {
		Result string `json:"result"`
		Error  *Error `json:"error"`
	}
	if err := json.Unmarshal([]byte(answer), &outcome); err != nil {
		return "", fmt.Errorf("%s did not return text: %w", name, err)
	}
	if outcome.Error != nil {
		return "", outcome.Error
	}
	return outcome.Result, nil
}

// Close flushes what Python has printed, runs its exit handlers and ends it.
func (p *Interpreter) Close() error {
	var status int
	p.do(func() {
		runKeepingActions("_drop_handlers()") // whose actions Python would reset in its end
		status = python3.Py_FinalizeEx()
	})
	if status != 0 {
		return errors.New("Python could not flush its output: is the disk full, or the reader of " +
			"the pipe gone?")
	}
	return nil
}

// serve is Python's main thread. It never ends: libraries keep destructors for the end of the
// thread that can't run once Python is gone.
func (p *Interpreter) serve(program string, started chan<- error) {
	runtime.LockOSThread()
	p.thread = C.pthread_self()
	if err := p.initialize(program); err != nil {
		started <- err
		return
	}
	state := python3.PyEval_SaveThread()
	started <- nil
	for f := range p.work {
		python3.PyEval_RestoreThread(state)
		f()
		if python3.Py_IsInitialized() {
			state = python3.PyEval_SaveThread()
		}
	}
}

func (p *Interpreter) initialize(program string) error {
	// it would move the standard library of an environment to where there is none
	os.Unsetenv("PYTHONHOME")
	C.Py_UTF8Mode = 1 // file names and output don't depend on the locale
	if err := python3.Py_SetProgramName(program); err != nil {
		return fmt.Errorf("the path of the Python interpreter %q cannot be used: %w", program, err)
	}
	python3.Py_InitializeEx(false) // signals stay Go's
	if python3.PyRun_SimpleString(support) != 0 ||
		!runKeepingActions("_take_handlers()") {
		return fmt.Errorf("Python did not start with %s: its message stands above; try the "+
			"interpreter by itself", program)
	}
	main := python3.PyImport_AddModule("__main__")
	p.functions = map[string]*python3.PyObject{}
	for _, name := range []string{"call", "create", "use", "drop", "fill"} {
		p.functions[name] = main.GetAttrString(name)
	}
	return nil
}

// callWithLock calls a function of support.py with texts; it returns text.
func (p *Interpreter) callWithLock(function string, words ...string) (string, error) {
	arguments := python3.PyTuple_New(len(words))
	defer arguments.DecRef()
	for i, word := range words {
		python3.PyTuple_SetItem(arguments, i, python3.PyUnicode_FromString(word))
	}
	answer := p.functions[function].CallObject(arguments)
	if answer == nil { // only an interrupt between Python's last handler and its return comes here
		python3.PyErr_Clear()
		return "", &Error{Type: "KeyboardInterrupt"}
	}
	defer answer.DecRef()
	return python3.PyUnicode_AsUTF8(answer), nil
}

// do runs f on Python's main thread with the global lock held, and waits for it.
func (p *Interpreter) do(f func()) { wait(p.work, f) }
