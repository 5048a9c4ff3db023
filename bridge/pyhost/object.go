//go:build python

package pyhost

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"unsafe"
)

// Object is an object of Python that lives from [Interpreter.New] to Drop.
type Object struct {
	python *Interpreter
	name   string // of the function that made it, for errors
	key    string
}

// New calls module.function(argument) on a thread of Python and keeps the object it returned. The
// error is an *Error when Python raised an exception.
func (p *Interpreter) New(on Thread, module, function, argument string) (*Object, error) {
	key, err := p.ask(on, "create", module, function, argument)
	if err != nil {
		return nil, err
	}
	return &Object{p, module + "." + function, key}, nil
}

// Call calls a method on Python's main thread and returns the text it returned.
func (o *Object) Call(method, argument string) (string, error) {
	return o.python.ask(o.python, "use", o.key, method, argument)
}

// Drop lets go of the object.
func (o *Object) Drop() error {
	_, err := o.python.ask(o.python, "drop", o.key)
	return err
}

// Fill calls a method on a thread of Python with memory to read and, as its last argument, memory
// to write. Python gets views of this memory, which it must not keep: where it does, the memory is
// never freed and the call fails. Interrupt does not end it.
func (o *Object) Fill(on Thread, method string, write []byte, read ...[]byte) (err error) {
	pinner := new(runtime.Pinner)
	lent := append(slices.Clip(read), write)
	for _, memory := range lent {
		if len(memory) > 0 {
			pinner.Pin(&memory[0])
		}
	}
	kept := false
	on.do(func() { kept, err = o.fillWithLock(method, lent) })
	if kept {
		keptForever.Store(pinner, nil)
	} else {
		pinner.Unpin()
	}
	return err
}

// keptForever holds the pins of memory that Python still refers to.
var keptForever sync.Map

func (o *Object) fillWithLock(method string, lent [][]byte) (kept bool, err error) {
	words := []string{o.key, method}
	for _, memory := range lent {
		address := uintptr(unsafe.Pointer(unsafe.SliceData(memory)))
		words = append(words, fmt.Sprintf("%d:%d", address, len(memory)))
	}
	answer, err := o.python.callWithLock("fill", words...)
	if err != nil || answer == "" {
		return false, err
	}
	var failure struct {
		Error *Error `json:"error"`
		Kept  bool   `json:"kept"`
	}
	if err := json.Unmarshal([]byte(answer), &failure); err != nil {
		return true, fmt.Errorf("%s of the object of %s failed without saying why: %w", method,
			o.name, err)
	}
	return failure.Kept, failure.Error
}

// Bytes is the memory of numbers, as [Object.Fill] takes it.
func Bytes[T ~float32 | ~int32](numbers []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(numbers))),
		len(numbers)*int(unsafe.Sizeof(one)))
}
