// Package cstruct gives tests memory of C, where Arrow C structs must live, and release callbacks
// that count.
package cstruct

/*
#include <stdint.h>
#include <stdlib.h>

struct array {
	int64_t counts[4];
	int64_t n_children;
	void *buffers;
	struct array **children;
	void *dictionary;
	void (*release)(struct array *);
	int64_t *released;
};
struct schema {
	void *texts[3];
	int64_t flags;
	int64_t n_children;
	struct schema **children;
	void *dictionary;
	void (*release)(struct schema *);
	int64_t *released;
};

static void count_array(struct array *a)   { if (a->released) ++*a->released; a->release = 0; }
static void count_schema(struct schema *s) { if (s->released) ++*s->released; s->release = 0; }
static void forgetful_array(struct array *a) { if (a->released) ++*a->released; }

static void call(void *callback, void *structs) { ((void (*)(void *))callback)(structs); }

static void *array_callback(void)     { return count_array; }
static void *schema_callback(void)    { return count_schema; }
static void *forgetful_callback(void) { return forgetful_array; }
*/
import "C"

import (
	"os"
	"syscall"
	"unsafe"
)

// Memory is zeroed memory of C that lives until Free.
type Memory struct {
	// Guarded memory lies in pages with an unreadable one behind them. Structs that claim more than
	// they have can't be told from sound ones: who believes them reads on there, within the pages
	// or up to a fault, and no checker of C's heap takes that for a defect of the reader.
	Guarded bool

	blocks []unsafe.Pointer
	pages  [][]byte
	free   []byte // of the last pages
}

const (
	pagesBytes = 1 << 16
	alignment  = 16
)

// guarded allocates n bytes of guarded memory.
func (m *Memory) guarded(n int) unsafe.Pointer {
	n = (n + alignment - 1) / alignment * alignment
	if n > len(m.free) {
		guard := os.Getpagesize()
		size := (max(n, pagesBytes) + guard - 1) / guard * guard
		pages, err := syscall.Mmap(-1, 0, size+guard, syscall.PROT_READ|syscall.PROT_WRITE,
			syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			panic(err)
		}
		if err := syscall.Mprotect(pages[size:], syscall.PROT_NONE); err != nil {
			panic(err)
		}
		m.pages, m.free = append(m.pages, pages), pages[:size]
	}
	p := unsafe.Pointer(unsafe.SliceData(m.free))
	m.free = m.free[n:]
	return p
}

// Bytes allocates n bytes, at least one.
func (m *Memory) Bytes(n int) unsafe.Pointer {
	if m.Guarded {
		return m.guarded(max(n, 1))
	}
	p := C.calloc(C.size_t(max(n, 1)), 1)
	m.blocks = append(m.blocks, p)
	return p
}

// Text allocates a C string.
func (m *Memory) Text(s string) *byte {
	p := (*byte)(m.Bytes(len(s) + 1))
	copy(unsafe.Slice(p, len(s)), s)
	return p
}

// New allocates one T.
func New[T any](m *Memory) *T {
	var t T
	return (*T)(m.Bytes(int(unsafe.Sizeof(t))))
}

// Slice allocates the elements of a slice and copies them.
func Slice[T any](m *Memory, values ...T) []T {
	var t T
	p := (*T)(m.Bytes(int(unsafe.Sizeof(t)) * len(values)))
	s := unsafe.Slice(p, len(values))
	copy(s, values)
	return s
}

// Free gives all blocks back.
func (m *Memory) Free() {
	for _, p := range m.blocks {
		C.free(p)
	}
	for _, pages := range m.pages {
		_ = syscall.Munmap(pages)
	}
	m.blocks, m.pages, m.free = nil, nil, nil
}

// ArrayRelease, SchemaRelease are callbacks that add 1 to the int64 that private_data leads to.
func ArrayRelease() unsafe.Pointer  { return C.array_callback() }
func SchemaRelease() unsafe.Pointer { return C.schema_callback() }

// ForgetfulRelease counts but doesn't mark the array released, against the specification.
func ForgetfulRelease() unsafe.Pointer { return C.forgetful_callback() }

// Call calls a release callback as a consumer written in C does.
func Call(callback, structs unsafe.Pointer) { C.call(callback, structs) }
