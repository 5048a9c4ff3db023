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
	children, err := pointers[cSchema](path, "schema", s.children, s.nChildren, 1)
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
	if s.release == 0 {
		return f, "", fault.New(fault.Value, "%s: the schema was released before", path)
	}
	if s.dictionary != 0 {
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

// readMetadata decodes int32 count, then count times (int32 length, key, int32 length, value).
func readMetadata(path string, address uintptr) (arrow.Metadata, error) {
	if address == 0 {
		return arrow.Metadata{}, nil
	}
	if !plausible(address, 1) {
		return arrow.Metadata{}, fault.New(fault.Value, "%s: the metadata's address is not one", path)
	}
	read := 0
	next := func(n int) []byte {
		read += n
		return unsafe.Slice(at[byte](address+uintptr(read-n)), n)
	}
	number := func() int { return int(int32(binary.NativeEndian.Uint32(next(4)))) }
	count := number()
	if count < 0 || count > maxPairs {
		return arrow.Metadata{}, fault.New(fault.Value, "%s: the metadata claims %d entries, at most %d are read", path, count, maxPairs)
	}
	words := make([]string, 2*count)
	for i := range words {
		n := number()
		if n < 0 || read+n > maxMetadata {
			return arrow.Metadata{}, fault.New(fault.Value, "%s: the metadata claims a text of %d bytes, at most %d are read", path, n, maxMetadata)
		}
		words[i] = string(next(n))
	}
	keys, values := make([]string, count), make([]string, count)
	for i := range count {
		keys[i], values[i] = words[2*i], words[2*i+1]
	}
	return arrow.NewMetadata(keys, values), nil
}
