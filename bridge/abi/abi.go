// Package abi is the list of calls from other languages into Go: addresses, scalars and texts,
// nothing else. Two packages lead to it, the extension module (bridge/native) and the hosting
// process (bridge/host), and no other Go code is called from Python. Both, and the list in Python,
// are generated from this package: see package callgen.
//
// Addresses are those of struct ArrowArray and struct ArrowSchema; a record batch is a struct
// array. Inputs belong to the call: it releases them before it returns, whether it succeeds or not,
// and keeps no pointer into them. Results are written into two zeroed structs of the caller, over
// memory of C's allocator, which the caller releases. An error leaves the result structs as they
// were, and its text begins with a code (package fault). No panic leaves a call.
package abi

import (
	"fmt"

	"agflow/bridge/carrow"
	"agflow/bridge/ipcfile"
	"agflow/core/fault"
)

//go:generate go run ../internal/callgen/generate

// Version returns the version of agflow and the number of this list.
func Version() (text string, err error) {
	defer fault.Recover(&err)
	return fmt.Sprintf("%s abi %d", ipcfile.Version, Number), nil
}

// LiveBytes returns the bytes of results that callers have not released yet.
func LiveBytes() (bytes int64, err error) {
	defer fault.Recover(&err)
	return results.AllocatedBytes(), nil
}

// ReleaseAddress returns the address of a release callback, for arrays and schemas, that only marks
// them released: for a caller that fills the structs itself over memory which it keeps alive for
// the call.
func ReleaseAddress() (address int64, err error) {
	defer fault.Recover(&err)
	return int64(carrow.MarkReleased), nil
}
