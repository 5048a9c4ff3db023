package ipcfile

import (
	"encoding/binary"
	"iter"
	"unicode/utf8"

	"agflow/core/fault"
)

// flatbuffer reads the metadata of an Arrow file (format: flatbuffers.dev, "internals"), which may
// be forged. Every offset and length is compared with the bytes there are before it is followed,
// and what is handed out is never more than those bytes, so that a small file can't ask for much
// memory. The first fault stays in err; what is read after it is empty.
type flatbuffer struct {
	bytes  []byte
	unread int // bytes of tables, texts and vectors that may still be handed out
	err    error
}

func newFlatbuffer(bytes []byte) *flatbuffer {
	return &flatbuffer{bytes: bytes, unread: len(bytes)}
}

func (f *flatbuffer) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fault.New(fault.File, format, args...)
	}
}

// peek returns n bytes from an offset on, nil when they aren't there.
func (f *flatbuffer) peek(at, n int) []byte {
	if f.err != nil || at < 0 || n < 0 || at > len(f.bytes)-n {
		f.fail("an offset in its metadata leads outside")
		return nil
	}
	return f.bytes[at : at+n : at+n]
}

// take is peek for what has only one place in a sound file: it counts against unread.
func (f *flatbuffer) take(at, n int) []byte {
	if n > f.unread {
		f.fail("parts of its metadata overlap")
	}
	bytes := f.peek(at, n)
	f.unread -= len(bytes)
	return bytes
}

// number reads a little-endian number of width bytes.
func (f *flatbuffer) number(at, width int) (n uint64) {
	for i, b := range f.peek(at, width) {
		n |= uint64(b) << (8 * i)
	}
	return n
}

// object is one table of a flatbuffer. One that is missing itself has no fields.
type object struct {
	in     *flatbuffer
	at     int
	size   int
	fields []byte // uint16 a field: where it stands in the object, 0 when it is absent
}

func (f *flatbuffer) root() object { return f.object(int(f.number(0, 4))) }

func (f *flatbuffer) object(at int) object {
	vtable := at - int(int32(f.number(at, 4)))
	header := f.peek(vtable, 4)
	if header == nil {
		return object{in: f}
	}
	fields := f.peek(vtable+4, int(binary.LittleEndian.Uint16(header))-4)
	inline := f.take(at, int(binary.LittleEndian.Uint16(header[2:])))
	if f.err != nil {
		return object{in: f}
	}
	return object{in: f, at: at, size: len(inline), fields: fields}
}

// field is the offset of a field of width bytes, 0 when it is absent.
func (o object) field(slot, width int) int {
	if len(o.fields) < 2*slot+2 {
		return 0
	}
	offset := int(binary.LittleEndian.Uint16(o.fields[2*slot:]))
	if offset == 0 {
		return 0
	}
	if offset+width > o.size {
		o.in.fail("a field in its metadata stands outside of its table")
		return 0
	}
	return o.at + offset
}

func (o object) has(slot int) bool { return o.field(slot, 1) != 0 }

// number reads a field; an absent one is 0, the default of all of Arrow's.
func (o object) number(slot, width int) uint64 {
	if at := o.field(slot, width); at != 0 {
		return o.in.number(at, width)
	}
	return 0
}

// follow is where the offset in a field leads, 0 when it is absent.
func (o object) follow(slot int) int {
	if at := o.field(slot, 4); at != 0 {
		return at + int(o.in.number(at, 4))
	}
	return 0
}

func (o object) child(slot int) object {
	if at := o.follow(slot); at != 0 {
		return o.in.object(at)
	}
	return object{in: o.in}
}

// vector returns the elements of a vector, and where they stand.
func (o object) vector(slot, width int) (elements []byte, at int) {
	if at = o.follow(slot); at == 0 {
		return nil, 0
	}
	count := o.in.number(at, 4) // uint32, so that its product with a width can't overflow
	return o.in.take(at+4, int(count)*width), at + 4
}

func (o object) children(slot int) iter.Seq[object] {
	return func(yield func(object) bool) {
		offsets, at := o.vector(slot, 4)
		for i := 0; i < len(offsets) && o.in.err == nil; i += 4 {
			if !yield(o.in.object(at + i + int(binary.LittleEndian.Uint32(offsets[i:])))) {
				return
			}
		}
	}
}

func (o object) text(slot int) string {
	letters, _ := o.vector(slot, 1)
	if !utf8.Valid(letters) {
		o.in.fail("a text in its metadata is not UTF-8")
		return ""
	}
	return string(letters)
}
