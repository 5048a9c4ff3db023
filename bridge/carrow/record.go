package carrow

import (
	"fmt"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// Record borrows a struct array as a record batch over the same memory, with the metadata of its
// schema and fields.
func (in *Input) Record() (record arrow.Record, err error) {
	err = in.guarded(func() (err error) {
		record, err = in.record()
		return err
	})
	return record, err
}

func (in *Input) record() (arrow.Record, error) {
	top, format, err := header(in.name, in.schema)
	if err != nil {
		return nil, err
	}
	if format != "+s" {
		return nil, fault.New(fault.Dtype,
			"%s: expected a record batch (struct array), found Arrow format %q", in.name, format)
	}
	n := in.schema.nChildren
	if n < 1 || n > maxColumns {
		return nil, fault.New(fault.Value, "%s: the record batch has %d columns, expected 1 to %d",
			in.name, n, maxColumns)
	}
	rows := in.array.length
	if err := checkArray(in.name, in.array, 1, 0, rows); err != nil {
		return nil, err
	}
	schemas, err := pointers[cSchema](in.name, "schema", in.schema.children, n, n)
	if err != nil {
		return nil, err
	}
	arrays, err := pointers[cArray](in.name, "array", in.array.children, in.array.nChildren, n)
	if err != nil {
		return nil, err
	}
	fields, columns := make([]arrow.Field, n), make([]arrow.Array, n)
	for i := range n {
		path := fmt.Sprintf("%s, column %d", in.name, i)
		if fields[i], err = field(path, schemas[i]); err != nil {
			return nil, err
		}
		data, err := column(path+" "+fields[i].Name, arrays[i], fields[i].Type, in.array.offset,
			rows)
		if err != nil {
			return nil, err
		}
		columns[i] = array.MakeFromData(data)
	}
	return array.NewRecord(arrow.NewSchema(fields, &top.Metadata), columns, rows), nil
}
