// Package pyhost runs CPython inside this process: the interpreter, its global lock, signals and
// exceptions. It is the only user of go-python3. Without the build tag "python" only the choice of
// an interpreter is compiled.
package pyhost

import "syscall"

// Status is the exit status of a process that a signal ended, as shells have it: 130 for SIGINT,
// 143 for SIGTERM.
func Status(number syscall.Signal) int { return 128 + int(number) }

// Error is a Python exception that a call ended with.
type Error struct {
	Type      string `json:"type"`      // name of the class, such as "ValueError"
	Message   string `json:"message"`   // str(exception)
	Code      string `json:"code"`      // an agflow exception's stable code, otherwise empty
	Traceback string `json:"traceback"` // as Python prints it, causes included
}

// Error is "Type: message" for foreign exceptions and the sentence alone for those of agflow, which
// name their cure.
func (e *Error) Error() string {
	switch {
	case e.Code != "":
		return e.Message
	case e.Message == "":
		return e.Type
	}
	return e.Type + ": " + e.Message
}

// IsInterrupt says whether the call ended with KeyboardInterrupt.
func (e *Error) IsInterrupt() bool { return e.Type == "KeyboardInterrupt" }
