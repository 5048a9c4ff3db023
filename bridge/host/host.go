// Package host exports the calls of package abi from a Go executable, for the Python that it hosts:
// C functions agflow_call_<name>, found in the process itself. Importing the package is enough.
//
// Every call takes the arguments of its abi function (texts as UTF-8 C strings, which stay the
// caller's), then where to put the number and the text of its result. It returns 0, or 1 when text
// is an error. A text belongs to the caller, who frees it with agflow_abi_free.
package host

/*
#include <stdint.h>
#include <stdlib.h>
*/
import "C"

import (
	"unsafe"

	"agflow/bridge/abi"
)

// agflow_abi_version marks the process as a host, and returns the number of its list of calls.
//
//export agflow_abi_version
func agflow_abi_version() C.int64_t { return C.int64_t(abi.Number) }

//export agflow_abi_free
func agflow_abi_free(text *C.char) { C.free(unsafe.Pointer(text)) }

// answer writes the result of a call that returns a number.
func answer(number *C.int64_t, text **C.char, result int64, err error) C.int32_t {
	if err != nil {
		*text = C.CString(err.Error())
		return 1
	}
	*number = C.int64_t(result)
	return 0
}

// answerText writes the result of a call that returns a text.
func answerText(text **C.char, result string, err error) C.int32_t {
	if err != nil {
		*text = C.CString(err.Error())
		return 1
	}
	*text = C.CString(result)
	return 0
}
