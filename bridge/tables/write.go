// Package tables defines agflow's tables: the columns and the metadata of every kind of file, from
// values of package core to record batches and back. XToRecord builds a record batch, XFromRecord
// copies the values out of one and refuses a table of another kind, a missing column, another type
// and nulls; columns that a kind doesn't know may be there and are not read. LentX is the same over
// the record batch's memory, which may be a mapped file, and lives as long as it does. The README
// of bridge/ lists the columns, which a test compares with this package. Files are read by package
// ipcfile.
package tables

import (
	"maps"
	"slices"
	"strings"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// checks read all columns of a kind, to refuse a table that lacks one.
var checks = map[string]func(arrow.Record) error{
	KindStatistics:  checkedBy(StatisticsFromRecord),
	KindScores:      checkedBy(ScoresFromRecord),
	KindPlan:        checkedBy(PlanFromRecord),
	KindPredictions: checkedBy(LentSamples),
	KindCurve:       checkedBy(CurveFromRecord),
	KindLatency:     checkedBy(LatencyFromRecord),
	KindFrontier:    checkFrontier,
	KindTensor:      checkedBy(Tensors),
	KindLogits:      checkedBy(LogitsFromRecord),
	KindDecisions:   checkedBy(DecisionsFromRecord),
}

func checkedBy[T any](read func(arrow.Record) (T, error)) func(arrow.Record) error {
	return func(rec arrow.Record) error {
		_, err := read(rec)
		return err
	}
}

// Write writes one record batch to a new file, or in place of an older one, and returns its bytes.
// The schema metadata must name a known kind (agflow.kind) and the columns must be those of that
// kind, so that no file is written which agflow could not read again.
func Write(path string, rec arrow.Record) (size int64, err error) {
	kind := ipcfile.Pairs(rec.Schema().Metadata())[ipcfile.KeyKind]
	check, known := checks[kind]
	if !known {
		return 0, fault.New(fault.Value, "the table's metadata %s is %.40q, expected one of %s",
			ipcfile.KeyKind, kind, strings.Join(slices.Sorted(maps.Keys(checks)), ", "))
	}
	if err := check(rec); err != nil {
		return 0, err
	}
	now, err := current(kind, rec, memory.DefaultAllocator)
	if err != nil {
		return 0, err
	}
	defer now.Release()
	return ipcfile.Write(path, now)
}
