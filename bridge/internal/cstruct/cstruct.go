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

import "unsafe"

// Memory is zeroed memory of C that lives until Free.
type Memory struct{ blocks []unsafe.Pointer }

// Bytes allocates n bytes, at least one.
func (m *Memory) Bytes(n int) unsafe.Pointer {
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
	m.blocks = nil
}

// ArrayRelease, SchemaRelease are callbacks that add 1 to the int64 that private_data leads to.
func ArrayRelease() unsafe.Pointer  { return C.array_callback() }
func SchemaRelease() unsafe.Pointer { return C.schema_callback() }

// ForgetfulRelease counts but doesn't mark the array released, against the specification.
func ForgetfulRelease() unsafe.Pointer { return C.forgetful_callback() }

// Call calls a release callback as a consumer written in C does.
func Call(callback, structs unsafe.Pointer) { C.call(callback, structs) }
