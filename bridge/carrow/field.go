package carrow

import (
	"encoding/binary"
	"strconv"
	"strings"
	"unsafe"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
)

const (
	maxText     = 1 << 16 // bytes of a format or a name
	maxMetadata = 1 << 24 // bytes of one metadata block
	maxPairs    = 1 << 12 // entries of one metadata block
	maxColumns  = 1 << 16
)

// leafTypes are the column types that agflow's tables are made of, by Arrow format string.
var leafTypes = map[string]arrow.DataType{
	"f": arrow.PrimitiveTypes.Float32,
	"g": arrow.PrimitiveTypes.Float64,
	"i": arrow.PrimitiveTypes.Int32,
	"l": arrow.PrimitiveTypes.Int64,
	"b": arrow.FixedWidthTypes.Boolean,
	"u": arrow.BinaryTypes.String,
}

// field reads the schema of one column: a leaf type, or a fixed-size list of one.
func field(path string, s *cSchema) (arrow.Field, error) {
	f, format, err := header(path, s)
	if err != nil {
		return f, err
	}
	if leaf, ok := leafTypes[format]; ok {
		if s.nChildren != 0 {
			return f, fault.New(fault.Value, "%s: the schema has %d children, a column of format %q has none", path, s.nChildren, format)
		}
		f.Type = leaf
		return f, nil
	}
	size, ok := listSize(format)
	if !ok {
		return f, fault.New(fault.Dtype, "%s: Arrow format %q is not one that agflow reads; cast it to float32, float64, int32, int64, bool, utf8 or a fixed-size list of one of them", path, format)
	}
	children, err := pointers(path, "schema", s.children, s.nChildren, 1)
	if err != nil {
		return f, err
	}
	item, format, err := header(path+" item", children[0])
	if err != nil {
		return f, err
	}
	if item.Type, ok = leafTypes[format]; !ok || children[0].nChildren != 0 {
		return f, fault.New(fault.Dtype, "%s: a fixed-size list of Arrow format %q is not one that agflow reads; cast its values to float32", path, format)
	}
	f.Type = arrow.FixedSizeListOfField(size, item)
	return f, nil
}

// header reads what every schema has: name, format, metadata.
func header(path string, s *cSchema) (f arrow.Field, format string, err error) {
	if s.release == nil {
		return f, "", fault.New(fault.Value, "%s: the schema was released before", path)
	}
	if s.dictionary != nil {
		return f, "", fault.New(fault.Dtype, "%s: dictionary (categorical) columns are not read; cast the column to plain values", path)
	}
	format, formatOK := text(s.format, maxText)
	name, nameOK := text(s.name, maxText)
	if !formatOK || !nameOK || format == "" {
		return f, "", fault.New(fault.Value, "%s: the schema has no readable format and name", path)
	}
	metadata, err := readMetadata(path, s.metadata)
	return arrow.Field{Name: name, Nullable: s.flags&flagNullable != 0, Metadata: metadata}, format, err
}

// listSize reads N of the fixed-size list format "+w:N".
func listSize(format string) (int32, bool) {
	digits, found := strings.CutPrefix(format, "+w:")
	n, err := strconv.ParseInt(digits, 10, 32)
	return int32(n), found && err == nil && n > 0
}

// pointers views an array of want child pointers, none of them nil.
func pointers[T any](path, what string, first **T, have, want int64) ([]*T, error) {
	if have != want || want > 0 && (first == nil || !aligned(first, 8)) {
		return nil, fault.New(fault.Value, "%s: the %s has %d children, its type needs %d", path, what, have, want)
	}
	children := unsafe.Slice(first, want)
	for i, child := range children {
		if child == nil || !aligned(child, 8) {
			return nil, fault.New(fault.Value, "%s: child %d of the %s is not a struct", path, i, what)
		}
	}
	return children, nil
}

// readMetadata decodes int32 count, then count times (int32 length, key, int32 length, value).
func readMetadata(path string, p *byte) (arrow.Metadata, error) {
	if p == nil {
		return arrow.Metadata{}, nil
	}
	at, ok := 0, true
	number := func() int {
		n := int(int32(binary.NativeEndian.Uint32(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(p), at)), 4))))
		at += 4
		return n
	}
	word := func() string {
		n := number()
		if n < 0 || at+n > maxMetadata {
			ok = false
			return ""
		}
		at += n
		return string(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(p), at-n)), n))
	}
	count := number()
	if count < 0 || count > maxPairs {
		return arrow.Metadata{}, fault.New(fault.Value, "%s: the metadata claims %d entries, at most %d are read", path, count, maxPairs)
	}
	keys, values := make([]string, 0, count), make([]string, 0, count)
	for range count {
		key := word()
		if !ok {
			break
		}
		value := word()
		keys, values = append(keys, key), append(values, value)
	}
	if !ok {
		return arrow.Metadata{}, fault.New(fault.Value, "%s: the metadata has an entry of negative or absurd length", path)
	}
	return arrow.NewMetadata(keys, values), nil
}
