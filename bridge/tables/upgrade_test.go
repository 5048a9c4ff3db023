package tables

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// stored are files of every format and kind, each written by the version that had the format.
func stored(t testing.TB, format int) map[string]string {
	paths, err := filepath.Glob(filepath.Join("testdata", "format"+strconv.Itoa(format), "*.arrow"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	files := map[string]string{}
	for _, path := range paths {
		files[strings.TrimSuffix(filepath.Base(path), ".arrow")] = path
	}
	return files
}

var rewrite = flag.Bool("rewrite", false, "write the stored files of the current format again")

// TestStoredFilesOfThisFormat proves that the format has not changed under its number: the samples
// make the stored files, byte for byte.
func TestStoredFilesOfThisFormat(t *testing.T) {
	folder := filepath.Join("testdata", "format"+strconv.Itoa(ipcfile.Format))
	samples := sampleFiles(t)
	for name, file := range samples {
		path := filepath.Join(folder, strings.ReplaceAll(name, " ", "-")+".arrow")
		if *rewrite {
			if err := ipcfile.WriteBytes(path, file); err != nil {
				t.Fatal(err)
			}
		}
		if found, err := os.ReadFile(path); err != nil || string(found) != string(file) {
			t.Errorf("%s is not what this version writes (%v): a change of the layout needs a new "+
				"number, and a step in upgrades", path, err)
		}
	}
	if found := stored(t, ipcfile.Format); len(found) != len(samples) {
		t.Errorf("%d files are stored, there are %d samples", len(found), len(samples))
	}
}

// TestOlderFormatsAreRead proves that every stored file of an older format becomes the table that
// this version makes of the same values, and that nothing stays allocated.
func TestOlderFormatsAreRead(t *testing.T) {
	alloc := memory.NewCheckedAllocator(mallocator.NewMallocator())
	defer alloc.AssertSize(t, 0)
	for format := 1; format < ipcfile.Format; format++ {
		for name, path := range stored(t, format) {
			kind, _, _ := strings.Cut(name, "-")
			rec, err := ipcfile.Read(path, kind, alloc)
			if err != nil {
				t.Fatal(err)
			}
			if err := checks[kind](rec); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			current, err := Checked(kind, rec, alloc)
			if err != nil || current == nil {
				t.Fatalf("%s: %v, %v", path, current, err)
			}
			if again, err := Checked(kind, current, alloc); err != nil || again != nil {
				t.Errorf("%s: what was upgraded is not of this format: %v, %v", path, again, err)
			}
			requireLayout(t, path, name, current)
			current.Release()
			rec.Release()
		}
	}
}

// requireLayout compares columns with those of the sample of a kind. Those of predictions that are
// optional may be missing.
func requireLayout(t *testing.T, path, name string, got arrow.Record) {
	t.Helper()
	want := stored(t, ipcfile.Format)[name]
	if want == "" {
		want = stored(t, ipcfile.Format)[strings.SplitN(name, "-", 2)[0]]
	}
	err := ipcfile.Use(want, "", func(rec arrow.Record) error {
		for i, field := range rec.Schema().Fields() {
			at := got.Schema().FieldIndices(field.Name)
			optional := field.Name == ensembleColumn || strings.HasPrefix(field.Name, priorPrefix)
			switch {
			case len(at) == 0 && optional:
			case len(at) != 1 || !arrow.TypeEqual(got.Schema().Field(at[0]).Type, field.Type):
				t.Errorf("%s: column %q is not there as in this format", path, field.Name)
			case !optional && at[0] != i:
				t.Errorf("%s: column %q is number %d, expected %d", path, field.Name, at[0], i)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// readStored reads a stored file as a Go value.
func readStored[T any](
	t *testing.T, format int, name, kind string, from func(arrow.Record) (T, error),
) (table T) {
	t.Helper()
	path := stored(t, format)[name]
	if err := ipcfile.Use(path, kind, func(rec arrow.Record) (err error) {
		table, err = from(rec)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return table
}

// ownedSamples copies what the record batch lends.
func ownedSamples(rec arrow.Record) (Samples, error) {
	s, err := LentSamples(rec)
	s.Labels, s.Heavy = slices.Clone(s.Labels), slices.Clone(s.Heavy)
	for i, prior := range s.Priors {
		s.Priors[i].Values = slices.Clone(prior.Values)
	}
	s.Labels, s.Heavy = slices.Clone(s.Labels), slices.Clone(s.Heavy)
	return s, err
}

// TestValuesOfOlderFormats proves the values of what changed: the same bits where a column stayed.
func TestValuesOfOlderFormats(t *testing.T) {
	for format := 1; format < ipcfile.Format; format++ {
		s := readStored(t, format, KindStatistics, KindStatistics, StatisticsFromRecord)
		want := sampleStatistics()
		if format == 1 {
			none, zeros := make([]int64, 5), make([]float64, 5)
			want.ReaderWeights, want.WeightGradients, want.SumWG = none, none, zeros
			want.SumAbsReader, want.SumReader2, want.SumRelativeReader = zeros, zeros, zeros
		}
		if !reflect.DeepEqual(s, want) {
			t.Errorf("format %d: got %+v, expected %+v", format, s, want)
		}
		scores := readStored(t, format, KindScores, KindScores, ScoresFromRecord)
		if !reflect.DeepEqual(scores, sampleScores()) {
			t.Errorf("format %d: got %+v, expected %+v", format, scores, sampleScores())
		}
		plan, wantPlan := readStored(t, format, KindPlan, KindPlan, PlanFromRecord), samplePlan()
		if format < 3 {
			wantPlan.Planned.LatencyMS = 0 // was not kept
		}
		if !reflect.DeepEqual(plan, wantPlan) {
			t.Errorf("format %d: got %+v, expected %+v", format, plan, wantPlan)
		}
		samples := readStored(t, format, KindPredictions, KindPredictions, ownedSamples)
		wantCost := routing.Cost{Light: 10, Heavy: 100, Shared: 1, Unit: routing.MACs}
		if samples.Cost != wantCost || (samples.EnsembleCorrect.Len() > 0) != (format == 3) ||
			!reflect.DeepEqual(samples.Priors[0], sampleSamples().Priors[0]) {
			t.Errorf("format %d: got %+v", format, samples)
		}
	}
	three := readStored(t, 3, KindPredictions, KindPredictions, ownedSamples)
	if !reflect.DeepEqual(three, sampleSamples()) {
		t.Errorf("got %+v, expected %+v", three, sampleSamples())
	}
	for format := 2; format < ipcfile.Format; format++ {
		curve := readStored(t, format, KindCurve, KindCurve, CurveFromRecord)
		if !reflect.DeepEqual(curve, sampleCurve()) {
			t.Errorf("format %d: got %+v, expected %+v", format, curve, sampleCurve())
		}
	}
}

// TestIntervalsOfOldCurves proves that a curve without intervals gets those of its counts.
func TestIntervalsOfOldCurves(t *testing.T) {
	want := sampleCurve()
	cost := routing.Cost{Light: 10, Heavy: 100, Shared: 1, Unit: routing.MACs}
	if err := routing.WithIntervals(want, 3, cost); err != nil {
		t.Fatal(err)
	}
	for format, name := range map[int]string{1: KindCurve, 3: "curve-without-intervals"} {
		if got := readStored(t, format, name, KindCurve, CurveFromRecord); !reflect.DeepEqual(got,
			want) {
			t.Errorf("format %d: got %+v, expected %+v", format, got, want)
		}
	}
}

// TestWordsOfOldFrontiers proves that stages, answers and the unit have the words of today.
func TestWordsOfOldFrontiers(t *testing.T) {
	err := ipcfile.Use(stored(t, 3)[KindFrontier], KindFrontier, func(old arrow.Record) error {
		rec, err := Upgrade(old)
		if err != nil {
			return err
		}
		defer rec.Release()
		for name, want := range map[string][]string{
			"stage": {"pruned", "short", "full"}, "answers": {"ensemble", "heavy", "ensemble"},
		} {
			column := rec.Column(rec.Schema().FieldIndices(name)[0]).(*array.String)
			for i, word := range want {
				if column.Value(i) != word {
					t.Errorf("%s of row %d is %q, expected %q", name, i, column.Value(i), word)
				}
			}
		}
		if unit := ipcfile.Pairs(rec.Schema().Metadata())[keyCostUnit]; unit != routing.MACs {
			t.Errorf("the unit is %q", unit)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestNewerFormatsAreRefused proves that a format of the future is refused by its number, and one
// that never was by what it is.
func TestNewerFormatsAreRefused(t *testing.T) {
	for format, want := range map[string]string{
		"5": "has format 5, this version reads up to 4: upgrade agflow", "0": "expected 1 to 4",
		"-1": "expected 1 to 4", "four": `has format "four"`, "": "expected 1 to 4",
		"99999999999999999999": "expected 1 to 4",
	} {
		rec := ScoresToRecord(memory.DefaultAllocator, sampleScores())
		pairs := ipcfile.Pairs(rec.Schema().Metadata())
		pairs[ipcfile.KeyFormat] = format
		metadata := arrow.MetadataFrom(pairs)
		rec = array.NewRecord(arrow.NewSchema(rec.Schema().Fields(), &metadata), rec.Columns(), 5)
		_, err := ScoresFromRecord(rec)
		if fault.CodeOf(err) != fault.File || !strings.Contains(err.Error(), want) {
			t.Errorf("format %q: %v, expected %q", format, err, want)
		}
	}
}

// TestEditedPlan proves that what a plan comes to follows from the units that it keeps, and that a
// latency, which does not, is dropped.
func TestEditedPlan(t *testing.T) {
	plan := samplePlan()
	plan.Keep[1] = true
	rec, err := PlanToRecord(memory.DefaultAllocator, plan)
	if err != nil {
		t.Fatal(err)
	}
	got, err := PlanFromRecord(rec)
	if err != nil || got.Planned.MACs != 980 || got.Planned.Params != 95 ||
		got.Planned.LatencyMS != 0 {
		t.Errorf("got %+v, %v", got.Planned, err)
	}
	current, err := Checked(KindPlan, rec, memory.DefaultAllocator)
	if err != nil || current == nil {
		t.Fatal(current, err)
	}
	again, err := Checked(KindPlan, current, memory.DefaultAllocator)
	if err != nil || again != nil {
		t.Error(again, err)
	}
	plan.Keep = []bool{false, false, false, true, true}
	if rec, err = PlanToRecord(memory.DefaultAllocator, plan); err != nil {
		t.Fatal(err)
	}
	if _, err := PlanFromRecord(rec); fault.CodeOf(err) != fault.Value {
		t.Errorf("a layer without units: %v", err)
	}
}
