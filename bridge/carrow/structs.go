package carrow

import (
	"unsafe"

	"agflow/core/fault"
)

// cSchema mirrors struct ArrowSchema of the Arrow C Data Interface, field by field, so that every field can be looked
// at before anything trusts it. Pointers are kept as numbers until then: Go's own runtime stops the process when it
// meets a small number in a pointer variable.
type cSchema struct {
	format, name, metadata uintptr
	flags, nChildren       int64
	children, dictionary   uintptr
	release, private       uintptr
}

// cArray mirrors struct ArrowArray.
type cArray struct {
	length, nullCount, offset, nBuffers, nChildren int64
	buffers, children, dictionary                  uintptr
	release, private                               uintptr
}

const flagNullable = 2 // ARROW_FLAG_NULLABLE

// plausible tells whether an address can lead to values of a width at all: not into the zero page, not past every
// address space, aligned.
func plausible(address, width uintptr) bool {
	return address >= 4096 && address < 1<<62 && address%width == 0
}

// at follows a plausible address.
func at[T any](address uintptr) *T { return *(**T)(unsafe.Pointer(&address)) }

// text copies a C string of at most max bytes; ok is false when there is none or it is longer. A missing one is "".
func text(address uintptr, max int) (s string, ok bool) {
	if address == 0 {
		return "", true
	}
	if !plausible(address, 1) {
		return "", false
	}
	for n := range max {
		if *at[byte](address + uintptr(n)) == 0 {
			return string(unsafe.Slice(at[byte](address), n)), true
		}
	}
	return "", false
}

// pointers follows an array of want addresses of structs.
func pointers[T any](path, what string, address uintptr, have, want int64) ([]*T, error) {
	if have != want || !plausible(address, 8) {
		return nil, fault.New(fault.Value, "%s: the %s has %d children, its type needs %d", path, what, have, want)
	}
	children := make([]*T, want)
	for i, child := range unsafe.Slice(at[uintptr](address), want) {
		if !plausible(child, 8) {
			return nil, fault.New(fault.Value, "%s: child %d of the %s is not a struct", path, i, what)
		}
		children[i] = at[T](child)
	}
	return children, nil
}
