package carrow

import (
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow/cdata"
)

// cSchema mirrors struct ArrowSchema of the Arrow C Data Interface, field by field, so that every
// field can be looked at before anything trusts it.
type cSchema struct {
	format, name, metadata *byte
	flags, nChildren       int64
	children               **cSchema
	dictionary             *cSchema
	release, private       unsafe.Pointer
}

// cArray mirrors struct ArrowArray.
type cArray struct {
	length, nullCount, offset, nBuffers, nChildren int64
	buffers                                        *unsafe.Pointer
	children                                       **cArray
	dictionary                                     *cArray
	release, private                               unsafe.Pointer
}

const flagNullable = 2 // ARROW_FLAG_NULLABLE

// arrayAt and schemaAt turn an address into a struct; nil when it can't be one.
func arrayAt(address int64) *cArray {
	if !plausible(address) {
		return nil
	}
	return (*cArray)(unsafe.Pointer(cdata.ArrayFromPtr(uintptr(address))))
}

func schemaAt(address int64) *cSchema {
	if !plausible(address) {
		return nil
	}
	return (*cSchema)(unsafe.Pointer(cdata.SchemaFromPtr(uintptr(address))))
}

// plausible refuses what no C struct can have as its address: the zero page, an odd address.
func plausible(address int64) bool { return address >= 4096 && address%8 == 0 }

func aligned[T any](p *T, width uintptr) bool { return uintptr(unsafe.Pointer(p))%width == 0 }

// text copies a C string of at most max bytes; ok is false when it is longer.
func text(p *byte, max int) (s string, ok bool) {
	if p == nil {
		return "", true
	}
	for n := 0; n <= max; n++ {
		if *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) == 0 {
			return string(unsafe.Slice(p, n)), true
		}
	}
	return "", false
}
