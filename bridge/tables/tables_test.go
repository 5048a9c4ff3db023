package tables

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"

	"agflow/bridge/ipcfile"
	"agflow/core/criteria"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// TestRoundTrip proves for every kind that a file gives back the table it was made from, and every
// byte of memory.
func TestRoundTrip(t *testing.T) {
	alloc := memory.NewCheckedAllocator(mallocator.NewMallocator())
	defer alloc.AssertSize(t, 0)
	convert := map[string]func(arrow.Record) (any, error){
		KindStatistics:  func(r arrow.Record) (any, error) { return StatisticsFromRecord(r) },
		KindScores:      func(r arrow.Record) (any, error) { return ScoresFromRecord(r) },
		KindPlan:        func(r arrow.Record) (any, error) { return PlanFromRecord(r) },
		KindPredictions: func(r arrow.Record) (any, error) { return LentSamples(r) },
		KindCurve:       func(r arrow.Record) (any, error) { return CurveFromRecord(r) },
		KindLatency:     func(r arrow.Record) (any, error) { return LatencyFromRecord(r) },
		KindDecisions:   func(r arrow.Record) (any, error) { return DecisionsFromRecord(r) },
	}
	want := map[string]any{
		KindStatistics: sampleStatistics(), KindScores: sampleScores(), KindPlan: samplePlan(),
		KindPredictions: sampleSamples(), KindCurve: sampleCurve(), KindLatency: sampleLatency(),
		KindDecisions: sampleDecisions(),
	}
	for kind, rec := range sampleRecords(t, alloc) {
		path := filepath.Join(t.TempDir(), kind+".arrow")
		if _, err := Write(path, rec); err != nil {
			t.Fatal(err)
		}
		back, err := ipcfile.Read(path, kind, alloc)
		if err != nil {
			t.Fatal(err)
		}
		if !array.RecordEqual(rec, back) || !rec.Schema().Equal(back.Schema()) {
			t.Errorf("%s: wrote %v, read %v", kind, rec, back)
		}
		if got, err := convert[kind](back); err != nil || !reflect.DeepEqual(got, want[kind]) {
			t.Errorf("%s: got %+v, expected %+v (%v)", kind, got, want[kind], err)
		}
		back.Release()
		rec.Release()
	}
}

// TestWrongTablesAreNotWritten proves that a file which agflow couldn't read back is never made.
func TestWrongTablesAreNotWritten(t *testing.T) {
	good := ScoresToRecord(memory.DefaultAllocator, sampleScores())
	with := func(key, value string) arrow.Record {
		pairs := ipcfile.Pairs(good.Schema().Metadata())
		pairs[key] = value
		metadata := arrow.MetadataFrom(pairs)
		schema := arrow.NewSchema(good.Schema().Fields(), &metadata)
		return array.NewRecord(schema, good.Columns(), good.NumRows())
	}
	repeated := sampleScores()
	repeated.Layers = append([]statistics.Layer{}, repeated.Layers...)
	repeated.Layers[1].Name = repeated.Layers[0].Name
	halfGrid, noTime := sampleLatency(), sampleLatency()
	halfGrid.Outputs, noTime.ModelMS = []int64{4, 3, 8}, 0
	for name, rec := range map[string]arrow.Record{
		"half a grid":    LatencyToRecord(memory.DefaultAllocator, halfGrid),
		"no model time":  LatencyToRecord(memory.DefaultAllocator, noTime),
		"unknown kind":   with(ipcfile.KeyKind, "spreadsheet"),
		"other kind":     with(ipcfile.KeyKind, KindPlan),
		"bad MACs":       with(keyModelMACs, "many"),
		"bad seed":       with(keySeed, "-1"),
		"row missing":    good.NewSlice(1, 5),
		"repeated layer": ScoresToRecord(memory.DefaultAllocator, repeated),
		"no rows":        ScoresToRecord(memory.DefaultAllocator, criteria.Scores{}),
		"no candidates":  sampleFrontier().NewSlice(0, 0),
	} {
		path := filepath.Join(t.TempDir(), "x.arrow")
		if _, err := Write(path, rec); err == nil {
			t.Errorf("%s was written", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s left a file", name)
		}
	}
}

var checksum = regexp.MustCompile("agflow-sha256-[0-9a-f]{64}")

// setChecksum writes the right checksum into a changed file, as the README defines it; false when
// there is no place for it.
func setChecksum(file []byte) bool {
	found := checksum.FindAllIndex(file, -1)
	if len(found) != 2 {
		return false
	}
	const digits = 64
	for _, at := range found {
		for i := at[1] - digits; i < at[1]; i++ {
			file[i] = '0'
		}
	}
	sum := sha256.Sum256(file)
	for _, at := range found {
		hex.Encode(file[at[1]-digits:], sum[:])
	}
	return true
}

// TestForgedTables proves for files of every kind that a change of a byte, with a right checksum,
// is an error or another table, never a panic.
func TestForgedTables(t *testing.T) {
	for name, file := range sampleFiles(t) {
		path := filepath.Join(t.TempDir(), "forged.arrow")
		for at := 0; at < len(file); at += 23 {
			forged := append([]byte{}, file...)
			forged[at] = ^forged[at]
			if !setChecksum(forged) {
				continue
			}
			if err := os.WriteFile(path, forged, 0o600); err != nil {
				t.Fatal(err)
			}
			rec, err := ipcfile.Read(path, "", memory.DefaultAllocator)
			if err != nil {
				continue
			}
			kind := ipcfile.Pairs(rec.Schema().Metadata())[ipcfile.KeyKind]
			if check, known := checks[kind]; known {
				_ = check(rec)
			}
			rec.Release()
		}
		if !setChecksum(file) {
			t.Fatal(name)
		}
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ipcfile.Verify(path); err != nil {
			t.Errorf("the checksum as the README defines it is not that of %s: %v", name, err)
		}
	}
}
