package carrow

import (
	"testing"
	"unsafe"

	"agflow/bridge/internal/cstruct"
)

// raw is one Arrow value as its producer sees it: structs in C memory, and how often each was
// released.
type raw struct {
	*cstruct.Memory
	array                           *cArray
	schema                          *cSchema
	arraysReleased, schemasReleased *int64 // top-level structs
}

func (r *raw) take(name string) *Input {
	return Take(name, int64(uintptr(unsafe.Pointer(r.array))),
		int64(uintptr(unsafe.Pointer(r.schema))))
}

func newRaw(t testing.TB) *raw { return rawIn(t, &cstruct.Memory{}) }

func rawIn(t testing.TB, m *cstruct.Memory) *raw {
	t.Cleanup(m.Free)
	return &raw{Memory: m, arraysReleased: cstruct.New[int64](m),
		schemasReleased: cstruct.New[int64](m)}
}

// newArray fills one struct; the first buffer is the validity bitmap.
func (r *raw) newArray(length int64, buffers []unsafe.Pointer, children ...*cArray) *cArray {
	a := cstruct.New[cArray](r.Memory)
	a.length, a.nBuffers, a.nChildren = length, int64(len(buffers)), int64(len(children))
	a.buffers = number(pointer(cstruct.Slice(r.Memory, buffers...)))
	if len(children) > 0 {
		a.children = number(pointer(cstruct.Slice(r.Memory, children...)))
	}
	a.release = number(cstruct.ArrayRelease())
	return a
}

func (r *raw) newSchema(format, name string, children ...*cSchema) *cSchema {
	s := cstruct.New[cSchema](r.Memory)
	s.format, s.name, s.nChildren = r.text(format), r.text(name), int64(len(children))
	if len(children) > 0 {
		s.children = number(pointer(cstruct.Slice(r.Memory, children...)))
	}
	s.release = number(cstruct.SchemaRelease())
	return s
}

// top makes two structs the value itself: their releases are counted.
func (r *raw) top(a *cArray, s *cSchema) *raw {
	r.array, r.schema = a, s
	a.private, s.private = number(unsafe.Pointer(r.arraysReleased)),
		number(unsafe.Pointer(r.schemasReleased))
	return r
}

func (r *raw) text(s string) uintptr { return number(unsafe.Pointer(r.Text(s))) }

// number is the address that a struct field holds.
func number(p unsafe.Pointer) uintptr { return uintptr(p) }

func pointer[T any](values []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(values)) }

// numbers puts numbers into C memory and returns their address.
func numbers[T any](r *raw, values ...T) uintptr {
	return number(pointer(cstruct.Slice(r.Memory, values...)))
}

// rawMatrix is FixedSizeList<float32>[channels].
func rawMatrix(t testing.TB, channels string, rows int64, values ...float32) *raw {
	return newRaw(t).matrix(channels, rows, values...)
}

func (r *raw) matrix(channels string, rows int64, values ...float32) *raw {
	data := cstruct.Slice(r.Memory, values...)
	item := r.newArray(int64(len(values)), []unsafe.Pointer{nil, pointer(data)})
	list := r.newArray(rows, []unsafe.Pointer{nil}, item)
	return r.top(list, r.newSchema("+w:"+channels, "", r.newSchema("f", "item")))
}

// rawRecord is a struct array of a utf8, a float64, a bool, an int32, a float16 and a uint16 column
// of three rows.
func rawRecord(t testing.TB) *raw { return newRaw(t).record() }

func (r *raw) record() *raw {
	offsets := cstruct.Slice[int32](r.Memory, 0, 1, 3, 6)
	letters := unsafe.Pointer(r.Text("abbccc"))
	floats := cstruct.Slice(r.Memory, 0.5, 1.5, 2.5)
	bits := cstruct.Slice[byte](r.Memory, 0b101)
	ints := cstruct.Slice[int32](r.Memory, 7, 8, 9)
	halves := cstruct.Slice[uint16](r.Memory, 0x0001, 0x3c00, 0xffff)
	array := r.newArray(3, []unsafe.Pointer{nil},
		r.newArray(3, []unsafe.Pointer{nil, pointer(offsets), letters}),
		r.newArray(3, []unsafe.Pointer{nil, pointer(floats)}),
		r.newArray(3, []unsafe.Pointer{nil, pointer(bits)}),
		r.newArray(3, []unsafe.Pointer{nil, pointer(ints)}),
		r.newArray(3, []unsafe.Pointer{nil, pointer(halves)}),
		r.newArray(3, []unsafe.Pointer{nil, pointer(halves)}))
	schema := r.newSchema("+s", "", r.newSchema("u", "layer"), r.newSchema("g", "score"),
		r.newSchema("b", "keep"), r.newSchema("i", "unit"),
		r.newSchema("e", "float16"), r.newSchema("S", "bfloat16"))
	schema.metadata = rawMetadata(r, "agflow.kind", "test")
	return r.top(array, schema)
}

// rawMetadata encodes pairs as the C data interface does.
func rawMetadata(r *raw, words ...string) uintptr {
	var block []byte
	count := func(n int) {
		block = append(block,
			unsafe.Slice((*byte)(unsafe.Pointer(&[]int32{int32(n)}[0])), 4)...)
	}
	count(len(words) / 2)
	for _, word := range words {
		count(len(word))
		block = append(block, word...)
	}
	return number(pointer(cstruct.Slice(r.Memory, block...)))
}

// child is child i of an array, childSchema that of a schema, bufferOf the address of buffer i.
func child(a *cArray, i int) *cArray {
	return at[cArray](unsafe.Slice(at[uintptr](a.children), a.nChildren)[i])
}

func childSchema(s *cSchema, i int) *cSchema {
	return at[cSchema](unsafe.Slice(at[uintptr](s.children), s.nChildren)[i])
}

func bufferOf(a *cArray, i int) *uintptr {
	return &unsafe.Slice(at[uintptr](a.buffers), a.nBuffers)[i]
}
