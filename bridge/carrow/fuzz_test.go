package carrow

import (
	"testing"
	"unsafe"

	"agflow/bridge/internal/cstruct"
	"agflow/core/fuzzing"
)

// FuzzStructs spoils fields of well-formed structs, several at once, with telling values. Whatever
// comes: no crash, and each top-level struct is released exactly once. The structs lie in guarded
// memory, since some will claim more values than they have.
func FuzzStructs(f *testing.F) {
	fuzzing.Begin(f)
	for i := range byte(40) {
		f.Add([]byte{i, 3})
		f.Add([]byte{i, 1, i + 7, 5})
	}
	f.Fuzz(func(t *testing.T, edits []byte) {
		guarded := func() *raw { return rawIn(t, &cstruct.Memory{Guarded: true}) }
		for _, r := range []*raw{guarded().matrix("2", 3, 1, 2, 3, 4, 5, 6),
			guarded().record()} {
			spoil(r, edits)
			r.top(r.array, r.schema)
			r.array.release, r.schema.release = number(cstruct.ArrayRelease()),
				number(cstruct.SchemaRelease())
			in := r.take("value")
			if m, err := in.Matrix(); err == nil &&
				(m.Rows() < 0 || m.Channels() < 1 || m.Stride() < m.Channels()) {
				t.Errorf("a matrix of %d x %d, stride %d", m.Rows(), m.Channels(), m.Stride())
			}
			if rec, err := in.Record(); err == nil {
				rec.Release()
			}
			in.Release()
			if *r.arraysReleased != 1 || *r.schemasReleased != 1 {
				t.Errorf("array released %d times, schema %d times",
					*r.arraysReleased, *r.schemasReleased)
			}
		}
	})
}

// FuzzMatrix gives a matrix any layout. What is accepted must lie within the values, and all of it
// can be read.
func FuzzMatrix(f *testing.F) {
	fuzzing.Begin(f)
	f.Add("2", "f", "", "", "", int64(3), int64(0), int64(0), int64(6))
	f.Add("2", "S", "bfloat16", "3", "1", int64(2), int64(1), int64(1), int64(9))
	f.Add("5", "g", "float64", "9223372036854775807", "5", int64(1)<<40, int64(1)<<40, int64(0),
		int64(1)<<40)
	f.Add("1", "e", "", "1099511627776", "", int64(0), int64(1), int64(1), int64(0))
	f.Add("6", "f", "", "", "3", int64(2), int64(1), int64(1), int64(18))
	f.Add("6", "f", "", "7", "2", int64(3), int64(0), int64(0), int64(20))
	f.Add("6", "g", "", "", "4", int64(1), int64(0), int64(0), int64(6))
	f.Add("2147483647", "e", "", "1099511627776", "2147483647", int64(1), int64(0), int64(0),
		int64(1)<<40)
	f.Add("2", "f", "", "", "-2", int64(1), int64(0), int64(0), int64(2))
	f.Fuzz(func(
		t *testing.T, size, format, dtype, stride, positions string,
		rows, listOffset, itemOffset, length int64,
	) {
		const held = 64
		r := newRaw(t)
		item := r.newArray(length, []unsafe.Pointer{nil, r.Bytes(8 * held)})
		item.offset = itemOffset
		list := r.newArray(rows, []unsafe.Pointer{nil}, item)
		list.offset = listOffset
		schema := r.newSchema("+w:"+size, "", r.newSchema(format, "item"))
		words := []string{"agflow.row_stride", stride, "agflow.dtype", dtype}
		if positions != "" {
			words = append(words, "agflow.positions", positions)
		}
		schema.metadata = rawMetadata(r, words...)
		in := r.top(list, schema).take("y")
		defer in.Release()
		m, err := in.Matrix()
		if err != nil || m.Rows() == 0 {
			return
		}
		width := int64(m.Channels()) * int64(max(m.Positions(), 1))
		last := (listOffset+rows-1)*int64(m.Stride()) + width
		if int64(m.Stride()) < width || last > length ||
			int64(m.Rows()) != rows*int64(max(m.Positions(), 1)) {
			t.Fatalf("%d x %d, %d positions, stride %d, list offset %d in %d values",
				m.Rows(), m.Channels(), m.Positions(), m.Stride(), listOffset, length)
		}
		if itemOffset+length <= held { // more was claimed than is there
			m.Row(m.Rows()-1, nil)
		}
	})
}

// spoil sets one 8-byte field of the value or of its first child for every two bytes: where, and to
// what.
func spoil(r *raw, edits []byte) {
	values := []uintptr{0, 1, ^uintptr(0), 2, 5, 1 << 20, 1 << 40, 1 << 62, 4096, unmapped,
		uintptr(unsafe.Pointer(r.array)) + 4, uintptr(unsafe.Pointer(r.array)),
		uintptr(unsafe.Pointer(r.schema))}
	for _, stride := range []string{"", "1", "2", "3", "-2", "1099511627776",
		"9223372036854775807"} {
		values = append(values,
			rawMetadata(r, "agflow.row_stride", stride, "agflow.dtype", "bfloat16"))
	}
	for _, positions := range []string{"", "0", "1", "2", "3", "-1", "9223372036854775807"} {
		values = append(values, rawMetadata(r, "agflow.positions", positions))
	}
	for _, format := range []string{"f", "g", "e", "S", "u", "b", "+s", "+w:2", "+w:2147483647", "",
		"+w:x"} {
		values = append(values, r.text(format))
	}
	structs := [][]uintptr{
		unsafe.Slice((*uintptr)(unsafe.Pointer(r.array)), 10),
		unsafe.Slice((*uintptr)(unsafe.Pointer(child(r.array, 0))), 10),
		unsafe.Slice((*uintptr)(unsafe.Pointer(r.schema)), 9),
		unsafe.Slice((*uintptr)(unsafe.Pointer(childSchema(r.schema, 0))), 9),
	}
	for ; len(edits) >= 2; edits = edits[2:] {
		fields := structs[edits[0]/16%4]
		fields[int(edits[0]%16)%len(fields)] = values[int(edits[1])%len(values)]
	}
}
