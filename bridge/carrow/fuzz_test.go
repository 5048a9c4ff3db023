package carrow

import (
	"testing"
	"unsafe"

	"agflow/bridge/internal/cstruct"
)

// FuzzStructs spoils fields of well-formed structs, several at once, with telling values. Whatever comes: no crash, and
// each top-level struct is released exactly once.
func FuzzStructs(f *testing.F) {
	for i := range byte(40) {
		f.Add([]byte{i, 3})
		f.Add([]byte{i, 1, i + 7, 5})
	}
	f.Fuzz(func(t *testing.T, edits []byte) {
		for _, r := range []*raw{rawMatrix(t, "2", 3, 1, 2, 3, 4, 5, 6), rawRecord(t)} {
			spoil(r, edits)
			r.top(r.array, r.schema)
			r.array.release, r.schema.release = number(cstruct.ArrayRelease()), number(cstruct.SchemaRelease())
			in := r.take("value")
			if m, err := in.Matrix(); err == nil && len(m.Data()) != m.Rows()*m.Channels() {
				t.Errorf("a matrix of %d values for %d x %d", len(m.Data()), m.Rows(), m.Channels())
			}
			if rec, err := in.Record(); err == nil {
				rec.Release()
			}
			in.Release()
			if *r.arraysReleased != 1 || *r.schemasReleased != 1 {
				t.Errorf("array released %d times, schema %d times", *r.arraysReleased, *r.schemasReleased)
			}
		}
	})
}

// spoil sets one 8-byte field of the value or of its first child for every two bytes: where, and to what.
func spoil(r *raw, edits []byte) {
	values := []uintptr{0, 1, ^uintptr(0), 2, 5, 1 << 20, 1 << 40, 1 << 62, 4096, unmapped,
		uintptr(unsafe.Pointer(r.array)) + 4, uintptr(unsafe.Pointer(r.array)), uintptr(unsafe.Pointer(r.schema))}
	for _, format := range []string{"f", "g", "u", "b", "+s", "+w:2", "+w:2147483647", "", "+w:x"} {
		values = append(values, r.text(format))
	}
	structs := [][]uintptr{
		unsafe.Slice((*uintptr)(unsafe.Pointer(r.array)), 10), unsafe.Slice((*uintptr)(unsafe.Pointer(child(r.array, 0))), 10),
		unsafe.Slice((*uintptr)(unsafe.Pointer(r.schema)), 9), unsafe.Slice((*uintptr)(unsafe.Pointer(childSchema(r.schema, 0))), 9),
	}
	for ; len(edits) >= 2; edits = edits[2:] {
		fields := structs[edits[0]/16%4]
		fields[int(edits[0]%16)%len(fields)] = values[int(edits[1])%len(values)]
	}
}
