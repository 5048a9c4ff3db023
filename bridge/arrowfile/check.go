package arrowfile

import (
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// checkKind refuses to write a table that agflow could not read again.
func checkKind(rec arrow.Record) (err error) {
	switch kind := toMap(rec.Schema().Metadata())[keyKind]; kind {
	case KindStatistics:
		_, err = StatisticsFromRecord(rec)
	case KindScores:
		_, err = ScoresFromRecord(rec)
	case KindPlan:
		_, err = PlanFromRecord(rec)
	case KindPredictions:
		_, err = PredictionsFromRecord(rec)
	case KindCurve:
		_, err = CurveFromRecord(rec)
	case KindTensor:
		_, err = tensorColumns(rec)
	default:
		err = fault.New(fault.Value, "the table's metadata %s is %q, expected %s, %s, %s, %s, %s or %s", keyKind, kind,
			KindStatistics, KindScores, KindPlan, KindPredictions, KindCurve, KindTensor)
	}
	return err
}

// checkLayout holds the buffers of a record batch against its lengths. The Arrow reader doesn't, and values would be
// read past the end of a buffer.
func checkLayout(rec arrow.Record) error {
	for i, values := range rec.Columns() {
		name := rec.ColumnName(i)
		if values.Len() != int(rec.NumRows()) {
			return fault.New(fault.File, "column %q has %d values, the batch has %d rows", name, values.Len(), rec.NumRows())
		}
		switch typed := values.(type) {
		case *array.FixedSizeList:
			need := (typed.Offset() + typed.Len()) * int(typed.DataType().(*arrow.FixedSizeListType).Len())
			if have := typed.ListValues().Len(); have < need {
				return fault.New(fault.File, "column %q has %d list values, expected %d", name, have, need)
			}
			if err := checkBuffers(name, typed.ListValues()); err != nil {
				return err
			}
		default:
			if err := checkBuffers(name, typed); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkBuffers checks a column without children.
func checkBuffers(name string, values arrow.Array) error {
	have := 0
	if buffers := values.Data().Buffers(); len(buffers) > 1 && buffers[1] != nil {
		have = buffers[1].Len()
	}
	end := values.Data().Offset() + values.Len()
	switch typed := values.(type) {
	case *array.String:
		for i := range typed.Len() {
			if typed.ValueOffset(i) < 0 || typed.ValueOffset(i+1) < typed.ValueOffset(i) {
				return fault.New(fault.File, "column %q: the offsets of text %d fall", name, i)
			}
		}
		return nil
	case *array.Boolean:
		end = (end + 7) / 8
	default:
		width, ok := values.DataType().(arrow.FixedWidthDataType)
		if !ok {
			return fault.New(fault.File, "column %q is %s, which agflow never writes", name, values.DataType())
		}
		end *= width.Bytes()
	}
	if have < end {
		return fault.New(fault.File, "column %q has %d bytes of values, expected %d", name, have, end)
	}
	return nil
}
