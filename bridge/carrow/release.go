package carrow

/*
// Calls a release callback as the Arrow C Data Interface asks for. The struct is marked released even when
// the callback forgets to: arrow's own helper would abort the process there.
#include <stdint.h>

struct agflow_array  { int64_t counts[5]; void *pointers[3]; void (*release)(struct agflow_array *);  void *private_data; };
struct agflow_schema { void *texts[3]; int64_t counts[2]; void *pointers[2]; void (*release)(struct agflow_schema *); void *private_data; };

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

func releaseArray(a *cArray)   { C.agflow_release_array(unsafe.Pointer(a)) }
func releaseSchema(s *cSchema) { C.agflow_release_schema(unsafe.Pointer(s)) }
