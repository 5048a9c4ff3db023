package tables

import (
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
)

// frontierColumns are the columns of a frontier, one row an evaluated candidate of a cascade's
// design. Python writes them.
var frontierColumns = []arrow.Field{
	{Name: "stage", Type: arrow.BinaryTypes.String},
	{Name: "image_size", Type: arrow.BinaryTypes.String},
	{Name: "width", Type: arrow.PrimitiveTypes.Float64},
	{Name: "branches", Type: arrow.PrimitiveTypes.Int64},
	{Name: "shared_blocks", Type: arrow.PrimitiveTypes.Int64},
	{Name: "light", Type: arrow.PrimitiveTypes.Float64},
	{Name: "light_accuracy", Type: arrow.PrimitiveTypes.Float64},
	{Name: "threshold", Type: arrow.PrimitiveTypes.Float64},
	{Name: "answers", Type: arrow.BinaryTypes.String},
	{Name: "escalation", Type: arrow.PrimitiveTypes.Float64},
	{Name: "accuracy", Type: arrow.PrimitiveTypes.Float64},
	{Name: "charged", Type: arrow.PrimitiveTypes.Float64},
	{Name: "images_per_second", Type: arrow.PrimitiveTypes.Float64},
	{Name: "oracle", Type: arrow.PrimitiveTypes.Float64},
}

// checkFrontier refuses a table of kind frontier that lacks a column.
func checkFrontier(rec arrow.Record) error {
	x := extract(rec, KindFrontier)
	defer x.release()
	for _, column := range frontierColumns {
		switch column.Type.ID() {
		case arrow.STRING:
			x.texts(column.Name)
		case arrow.INT64:
			x.int64s(column.Name)
		default:
			x.float64s(column.Name)
		}
	}
	rows := x.rows()
	if x.err == nil && rows == 0 {
		return fault.New(fault.Empty,
			"the frontier has no row, expected one for each candidate that was evaluated")
	}
	x.within(keyHeavyAccuracy, 0, 0, 1)
	x.within(keyTolerance, 0, 0, 1)
	if chosen := x.integer(keyChosen); x.err == nil && (chosen < 0 || chosen >= rows) {
		return fault.New(fault.Value,
			"metadata %s is %d, expected the row of a candidate, from 0 to %d", keyChosen, chosen,
			rows-1)
	}
	return x.err
}
