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
		_, err = SamplesFromRecord(rec)
	case KindCurve:
		_, err = CurveFromRecord(rec)
	case KindLatency:
		_, err = LatencyFromRecord(rec)
	case KindFrontier:
		err = checkFrontier(rec)
	case KindTensor:
		_, err = tensorColumns(rec)
	case KindLogits:
		_, err = LogitsFromRecord(rec)
	case KindDecisions:
		_, err = DecisionsFromRecord(rec)
	default:
		err = fault.New(fault.Value, "the table's metadata %s is %q, expected %s, %s, %s, %s, %s, %s, %s, %s, %s or %s", keyKind, kind,
			KindStatistics, KindScores, KindPlan, KindPredictions, KindCurve, KindLatency, KindFrontier, KindTensor, KindLogits, KindDecisions)
	}
	if err == nil {
		err = checkColumns(rec)
	}
	return err
}

// checkColumns refuses what a file can't hold, in columns that the kind doesn't know too.
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
			return fault.New(fault.Value, "column %q has %d nulls, expected none; fill or drop them first", f.Name, nulls)
		}
	}
	return nil
}
