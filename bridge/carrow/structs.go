package carrow

import (
	"unsafe"

	"agflow/core/fault"
)

// cSchema mirrors struct ArrowSchema of the Arrow C Data Interface, field by field, so that every
// field can be checked before anything trusts it. Pointers are kept as numbers until then: Go's
// own runtime stops the process when it meets a small number in a pointer variable.
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

// plausible reports whether an address can lead to values of a width at all: not into the zero
// page, not past every address space, aligned.
func plausible(address, width uintptr) bool {
	return address >= 4096 && address < 1<<62 && address%width == 0
}

// at follows a plausible address.
func at[T any](address uintptr) *T { return *(**T)(unsafe.Pointer(&address)) }

// Flag borrows the int32 at an address; nil for the address 0.
func Flag(address int64) (*int32, error) {
	switch {
	case address == 0:
		return nil, nil
	case !plausible(uintptr(address), unsafe.Alignof(int32(0))):
		return nil, fault.New(fault.Value,
			"the flag's address %d leads to no int32; pass that of an int32, or 0 for none",
			address)
	}
	return at[int32](uintptr(address)), nil
}

// cText borrows a C string of at most max bytes; ok is false when there is none or it is longer. A
// missing one is empty.
func cText(address uintptr, max int) (s []byte, ok bool) {
	if address == 0 {
		return nil, true
	}
	if !plausible(address, 1) {
		return nil, false
	}
	for n := range max {
		if *at[byte](address + uintptr(n)) == 0 {
			return unsafe.Slice(at[byte](address), n), true
		}
	}
	return nil, false
}

// pointers follows an array of want addresses of structs.
func pointers[T any](path, what string, address uintptr, have, want int64) ([]*T, error) {
	if err := checkChildren(path, what, address, have, want); err != nil {
		return nil, err
	}
	children := make([]*T, want)
	for i := range children {
		var err error
		if children[i], err = childAt[T](path, what, address, i); err != nil {
			return nil, err
		}
	}
	return children, nil
}

// onlyChild follows an array of one address.
func onlyChild[T any](path, what string, address uintptr, have int64) (*T, error) {
	if err := checkChildren(path, what, address, have, 1); err != nil {
		return nil, err
	}
	return childAt[T](path, what, address, 0)
}

func checkChildren(path, what string, address uintptr, have, want int64) error {
	if have != want || !plausible(address, 8) {
		return fault.New(fault.Value, "%s: the %s has %d children, its type needs %d",
			path, what, have, want)
	}
	return nil
}

func childAt[T any](path, what string, address uintptr, i int) (*T, error) {
	child := *at[uintptr](address + 8*uintptr(i))
	if !plausible(child, 8) {
		return nil, fault.New(fault.Value, "%s: child %d of the %s is not a struct", path, i, what)
	}
	return at[T](child), nil
}
