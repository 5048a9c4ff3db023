package tables

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// shards writes statistics of three runs, and links to them, and returns the links.
func shards(t *testing.T, links int) (paths []string, loaded []statistics.Table) {
	t.Helper()
	folder := t.TempDir()
	for i := range 3 {
		table := sampleStatistics()
		for u := range table.SumYG {
			table.SumYG[u] += float64(i) / 3
		}
		table.Metadata["agflow.data"] = fmt.Sprint("run", i)
		rec := StatisticsToRecord(memory.DefaultAllocator, table)
		if _, err := Write(filepath.Join(folder, fmt.Sprint(i)), rec); err != nil {
			t.Fatal(err)
		}
		rec.Release()
	}
	for k := range links {
		path := filepath.Join(folder, fmt.Sprintf("link%d", k))
		if err := os.Symlink(fmt.Sprint(k%3), path); err != nil {
			t.Fatal(err)
		}
		table := sampleStatistics()
		for u := range table.SumYG {
			table.SumYG[u] += float64(k%3) / 3
		}
		table.Metadata["agflow.data"] = fmt.Sprint("run", k%3)
		paths, loaded = append(paths, path), append(loaded, table)
	}
	return paths, loaded
}

// Files merge as their tables do, bit for bit; a file that is named twice counts twice.
func TestFilesMergeAsTheirTables(t *testing.T) {
	paths, loaded := shards(t, 40)
	paths, loaded = append(paths, paths[0]), append(loaded, loaded[0])
	got, err := MergeStatistics(paths)
	if err != nil {
		t.Fatal(err)
	}
	want, err := statistics.Merge(loaded...)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if runs := strings.Count(got.Metadata["agflow.data"], "+"); runs != 40 || got.Rows[0] != 41*7 {
		t.Errorf("%d runs and %d rows were counted", runs+1, got.Rows[0])
	}
}

// The error of a file begins with its name, wherever it stands in the list and whatever is wrong.
func TestTheFileThatDoesNotMergeIsNamed(t *testing.T) {
	paths, _ := shards(t, 6)
	odd := filepath.Join(filepath.Dir(paths[0]), "odd")
	for name, c := range map[string]struct {
		spoil func(*statistics.Table)
		code  fault.Code
	}{
		"model":   {func(m *statistics.Table) { m.Model.Name = "other" }, fault.Value},
		"weights": {func(m *statistics.Table) { m.SumW2[4]++ }, fault.Value},
		"layers": {func(m *statistics.Table) {
			m.Layers = slices.Clone(m.Layers)
			m.Layers[0].UnitMACs++
		}, fault.Layer},
		"sums":      {func(m *statistics.Table) { m.SumG2[0] = -1.7e308 }, fault.Nonfinite},
		"truncated": {nil, fault.File},
		"missing":   {nil, fault.IO},
	} {
		table := sampleStatistics()
		if c.spoil != nil {
			c.spoil(&table)
		}
		if name == "sums" { // each is finite, the two together are not
			table.SumG2[1] = 1.7e308
		}
		rec := StatisticsToRecord(memory.DefaultAllocator, table)
		size, err := Write(odd, rec)
		if err != nil {
			t.Fatal(err)
		}
		rec.Release()
		switch name {
		case "truncated":
			err = os.Truncate(odd, size-1)
		case "missing":
			err = os.Remove(odd)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = MergeStatistics(append(slices.Clone(paths), odd, odd, paths[0]))
		if fault.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), odd) {
			t.Errorf("%s: got %v, want code %s and %s", name, err, c.code, odd)
		}
	}
}

// A file that is merged is not copied: nine files allocate little more than one.
func TestMergeCopiesNoFile(t *testing.T) {
	if underASan {
		t.Skip("the address sanitizer allocates what is measured here")
	}
	layer := statistics.Layer{
		Name: "wide", Group: "mlp", Rounds: true, Units: 20_000, UnitWidth: 1, Parts: 1,
	}
	sums, err := statistics.NewAccumulator(statistics.Model{}, []statistics.Layer{layer}, 1)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "wide.arrow")
	rec := StatisticsToRecord(memory.DefaultAllocator, sums.Table())
	defer rec.Release()
	size, err := Write(path, rec)
	if err != nil {
		t.Fatal(err)
	}
	allocated := func(files int) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := MergeStatistics(slices.Repeat([]string{path}, files)); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	one := allocated(1)
	if nine := allocated(9); nine > one+uint64(size)/2 {
		t.Errorf("nine files of %d bytes allocate %d bytes, one %d", size, nine, one)
	}
}
