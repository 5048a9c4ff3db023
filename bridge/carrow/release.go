package carrow

/*
// Calls a release callback as the Arrow C Data Interface asks for. The struct is marked released
// even when the callback forgets to: arrow's own helper would abort the process there.
#include <stdint.h>

struct agflow_array {
	int64_t counts[5];
	void *pointers[3];
	void (*release)(struct agflow_array *);
	void *private_data;
};
struct agflow_schema {
	void *texts[3];
	int64_t counts[2];
	void *pointers[2];
	void (*release)(struct agflow_schema *);
	void *private_data;
};

// The callback of structs whose memory their producer keeps: it marks either struct released, and
// no more. Words 7 and 8 are dictionary and release of an array, release and private_data of a
// schema; all but release are NULL in them.
static void agflow_mark_released(void *structs) {
	void **words = structs;
	words[7] = words[8] = 0;
}

static uintptr_t agflow_mark_released_address(void) { return (uintptr_t)agflow_mark_released; }

static void agflow_release_array(void *p) {
	struct agflow_array *a = p;
	if (a->release) { a->release(a); a->release = 0; }
}

static void agflow_release_schema(void *p) {
	struct agflow_schema *s = p;
	if (s->release) { s->release(s); s->release = 0; }
}
*/
import "C"

import "unsafe"

// MarkReleased is the address of a release callback, for arrays and schemas, that only sets release
// to NULL: for structs over memory that their producer keeps alive for the whole call anyway.
var MarkReleased = uintptr(C.agflow_mark_released_address())

func releaseArray(a *cArray) {
	if a.release == MarkReleased { // spares a call into C
		a.release = 0
		return
	}
	C.agflow_release_array(unsafe.Pointer(a))
}

func releaseSchema(s *cSchema) {
	if s.release == MarkReleased {
		s.release = 0
		return
	}
	C.agflow_release_schema(unsafe.Pointer(s))
}
