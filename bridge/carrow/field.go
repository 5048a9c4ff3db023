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
	"e": arrow.FixedWidthTypes.Float16,
	"S": arrow.PrimitiveTypes.Uint16, // the bits of bfloat16
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
			return f, fault.New(fault.Value,
				"%s: the schema has %d children, a column of format %q has none",
				path, s.nChildren, format)
		}
		f.Type = leaf
		return f, nil
	}
	size, ok := listSize(format)
	if !ok {
		return f, fault.New(fault.Dtype,
			"%s: %s is not a type that agflow reads; cast it to float16, float32, "+
				"float64, uint16, int32, int64, bool, utf8 or a fixed-size list of one of them",
			path, typeName(format))
	}
	child, err := onlyChild[cSchema](path, "schema", s.children, s.nChildren)
	if err != nil {
		return f, err
	}
	item, format, err := header(path+" item", child)
	if err != nil {
		return f, err
	}
	if item.Type, ok = leafTypes[format]; !ok || child.nChildren != 0 {
		return f, fault.New(fault.Dtype,
			"%s: a fixed-size list of %s is not a type that agflow reads; cast its values to "+
				"float32", path, typeName(format))
	}
	f.Type = arrow.FixedSizeListOfField(size, item)
	return f, nil
}

// header reads what every schema has: name, format, metadata.
func header(path string, s *cSchema) (f arrow.Field, format string, err error) {
	letters, err := formatOf(path, s)
	if err != nil {
		return f, "", err
	}
	name, ok := cText(s.name, maxText)
	if !ok {
		return f, "", fault.New(fault.Value, "%s: the schema has no readable name", path)
	}
	var keys, values []string
	err = eachPair(path, s.metadata, func(key, value []byte) {
		keys, values = append(keys, string(key)), append(values, string(value))
	})
	f = arrow.Field{Name: string(name), Nullable: s.flags&flagNullable != 0,
		Metadata: arrow.NewMetadata(keys, values)}
	return f, string(letters), err
}

// formatOf borrows the format of a schema that is alive and not a dictionary's.
func formatOf(path string, s *cSchema) ([]byte, error) {
	if s.release == 0 {
		return nil, fault.New(fault.Value, "%s: the schema was released before", path)
	}
	if s.dictionary != 0 {
		return nil, fault.New(fault.Dtype,
			"%s: dictionary (categorical) columns are not read; cast the column to plain values",
			path)
	}
	format, ok := cText(s.format, maxText)
	if !ok || len(format) == 0 {
		return nil, fault.New(fault.Value, "%s: the schema has no readable format", path)
	}
	return format, nil
}

// listSize reads N of the fixed-size list format "+w:N".
func listSize(format string) (int32, bool) {
	digits, found := strings.CutPrefix(format, "+w:")
	n, err := strconv.ParseInt(digits, 10, 32)
	return int32(n), found && err == nil && n > 0
}

// eachPair shows the pairs of a metadata block: int32 count, then count times (int32 length, key,
// int32 length, value). visit may not keep the slices.
func eachPair(path string, address uintptr, visit func(key, value []byte)) error {
	if address == 0 {
		return nil
	}
	if !plausible(address, 1) {
		return fault.New(fault.Value, "%s: the metadata's address is not one", path)
	}
	block := metadataBlock{start: address}
	count := block.number()
	if count < 0 || count > maxPairs {
		return fault.New(fault.Value, "%s: the metadata claims %d entries, at most %d are read",
			path, count, maxPairs)
	}
	for range count {
		key, keyOK := block.text()
		value, valueOK := block.text()
		if !keyOK || !valueOK {
			return fault.New(fault.Value,
				"%s: the metadata claims a text of more than the %d bytes that are read",
				path, maxMetadata)
		}
		visit(key, value)
	}
	return nil
}

// metadataBlock is read from its start to its end.
type metadataBlock struct {
	start uintptr
	read  int
}

func (b *metadataBlock) next(n int) []byte {
	b.read += n
	return unsafe.Slice(at[byte](b.start+uintptr(b.read-n)), n)
}

func (b *metadataBlock) number() int { return int(int32(binary.NativeEndian.Uint32(b.next(4)))) }

// text is false, for ever after too, when a length is negative or leads past maxMetadata bytes.
func (b *metadataBlock) text() ([]byte, bool) {
	if b.read > maxMetadata {
		return nil, false
	}
	n := b.number()
	if n < 0 || b.read+n > maxMetadata {
		b.read = maxMetadata + 1
		return nil, false
	}
	return b.next(n), true
}
