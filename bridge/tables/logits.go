package tables

import (
	"agflow/core/fault"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// LogitsFromRecord sees the logits of images through one expert: one row an image, the column
// logits of FixedSizeList<T>[classes], T as in tensor files. The view lives as long as the record
// batch.
func LogitsFromRecord(rec arrow.Record) (tensor.View, error) {
	x := extract(rec, KindLogits)
	defer x.release()
	list, ok := column[*array.FixedSizeList](x, "logits")
	if !ok {
		return tensor.View{}, x.err
	}
	if nulls := list.ListValues().NullN(); nulls > 0 {
		return tensor.View{}, fault.New(fault.Value,
			"column \"logits\" has %d nulls, expected none", nulls)
	}
	field := x.rec.Schema().Field(x.rec.Schema().FieldIndices("logits")[0])
	return listView(field, list, rowSize(list))
}
