package ipcfile

import (
	"fmt"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// Types of a field, numbered as in Arrow's Schema.fbs.
const (
	typeInt           = 2
	typeFloat         = 3
	typeUtf8          = 5
	typeBool          = 6
	typeFixedSizeList = 16
)

var typeNames = [...]string{
	"untyped", "null", "int", "float", "binary", "utf8", "bool", "decimal", "date", "time",
	"timestamp", "interval", "list",
	"struct", "union", "fixed-size binary", "fixed-size list", "map", "duration", "large binary",
	"large utf8", "large list",
	"run-end encoded", "binary view", "utf8 view", "list view", "large list view",
}

// typeKey distinguishes types: the bits of an int and whether it is signed, the precision of a
// float (half, single, double).
type typeKey struct {
	code, width, signed uint64
}

// leafTypes are the types that columns, and the values of fixed-size lists, may have.
var leafTypes = map[typeKey]arrow.DataType{
	{typeUtf8, 0, 0}:  arrow.BinaryTypes.String,
	{typeBool, 0, 0}:  arrow.FixedWidthTypes.Boolean,
	{typeInt, 8, 1}:   arrow.PrimitiveTypes.Int8,
	{typeInt, 16, 1}:  arrow.PrimitiveTypes.Int16,
	{typeInt, 32, 1}:  arrow.PrimitiveTypes.Int32,
	{typeInt, 64, 1}:  arrow.PrimitiveTypes.Int64,
	{typeInt, 8, 0}:   arrow.PrimitiveTypes.Uint8,
	{typeInt, 16, 0}:  arrow.PrimitiveTypes.Uint16,
	{typeInt, 32, 0}:  arrow.PrimitiveTypes.Uint32,
	{typeInt, 64, 0}:  arrow.PrimitiveTypes.Uint64,
	{typeFloat, 0, 0}: arrow.FixedWidthTypes.Float16,
	{typeFloat, 1, 0}: arrow.PrimitiveTypes.Float32,
	{typeFloat, 2, 0}: arrow.PrimitiveTypes.Float64,
}

const goodTypes = "utf8, bool, integers, float16, float32, float64 or a fixed-size list of one " +
	"of them"

// checkType refuses the types that readField refuses, for writing.
func checkType(name string, dt arrow.DataType) error {
	leaf := dt
	if list, ok := dt.(*arrow.FixedSizeListType); ok {
		leaf = list.Elem()
	}
	for _, known := range leafTypes {
		if arrow.TypeEqual(known, leaf) {
			return nil
		}
	}
	return fault.New(fault.Dtype,
		"column %q is %s, agflow's files hold %s; cast it, or leave it out", name, dt, goodTypes)
}

// checkColumns refuses what a file can't hold.
func checkColumns(rec arrow.Record) error {
	for i, f := range rec.Schema().Fields() {
		if err := checkType(f.Name, f.Type); err != nil {
			return err
		}
		nulls := rec.Column(i).NullN()
		if list, ok := rec.Column(i).(*array.FixedSizeList); ok {
			nulls += list.ListValues().NullN()
		}
		if nulls > 0 {
			return fault.New(fault.Value,
				"column %q has %d nulls, expected none; fill or drop them first", f.Name, nulls)
		}
	}
	return nil
}

// readSchema reads the schema of a footer.
func readSchema(o object) (*arrow.Schema, error) {
	if o.number(0, 2) != 0 {
		o.in.fail("its numbers are big-endian, agflow reads little-endian ones")
	}
	var fields []arrow.Field
	for child := range o.children(1) {
		fields = append(fields, readField(child))
	}
	metadata := readMetadata(o, 2)
	if len(fields) == 0 {
		o.in.fail("it has no columns")
	}
	if o.in.err != nil {
		return nil, o.in.err
	}
	return arrow.NewSchema(fields, &metadata), nil
}

// readField reads a column: of a leaf type, or of fixed-size lists of one.
func readField(o object) arrow.Field {
	f := readHeader(o)
	if o.number(2, 1) != typeFixedSizeList {
		f.Type = readLeaf(o, f.Name)
		return f
	}
	size := int32(o.child(3).number(0, 4))
	var items []arrow.Field
	for child := range o.children(5) {
		item := readHeader(child)
		item.Type = readLeaf(child, f.Name)
		items = append(items, item)
	}
	if len(items) != 1 || size < 1 {
		o.in.fail("column %q has lists of %d values of %d types, expected at least 1 of 1",
			f.Name, size, len(items))
	}
	if o.in.err == nil {
		f.Type = arrow.FixedSizeListOfField(size, items[0])
	}
	return f
}

// readHeader reads what every field has.
func readHeader(o object) arrow.Field {
	f := arrow.Field{Name: o.text(0), Nullable: o.number(1, 1) != 0, Metadata: readMetadata(o, 6)}
	if o.has(4) {
		o.in.fail("column %q is dictionary-encoded (categorical), agflow reads plain columns",
			f.Name)
	}
	return f
}

// readLeaf reads the type of a field that has no children.
func readLeaf(o object, name string) arrow.DataType {
	key := typeKeyOf(o)
	leaf, known := leafTypes[key]
	if !known {
		o.in.fail("column %q is %s, agflow reads %s", name, key, goodTypes)
	}
	return leaf
}

func typeKeyOf(o object) typeKey {
	key := typeKey{code: o.number(2, 1)}
	switch parameters := o.child(3); key.code {
	case typeInt:
		key.width, key.signed = parameters.number(0, 4), parameters.number(1, 1)
	case typeFloat:
		key.width = parameters.number(0, 2)
	}
	return key
}

func (k typeKey) String() string {
	switch {
	case k.code >= uint64(len(typeNames)):
		return fmt.Sprintf("of the unknown type %d", k.code)
	case k.code == typeFloat && k.width < 3:
		return fmt.Sprintf("float%d", 16<<k.width)
	case k.code == typeInt:
		return fmt.Sprintf("%sint%d", [2]string{"u", ""}[k.signed&1], k.width)
	}
	return typeNames[k.code]
}

// readMetadata reads a vector of pairs.
func readMetadata(o object, slot int) arrow.Metadata {
	var keys, values []string
	for pair := range o.children(slot) {
		keys, values = append(keys, pair.text(0)), append(values, pair.text(1))
	}
	return arrow.NewMetadata(keys, values)
}
