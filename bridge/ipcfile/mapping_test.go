package ipcfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// TestMain proves that no test leaves a file mapped.
func TestMain(m *testing.M) {
	code := m.Run()
	maps, _ := os.ReadFile("/proc/self/maps")
	if bytes.Contains(maps, []byte(".arrow")) {
		fmt.Printf("files are still mapped:\n%s", maps)
		code = 1
	}
	os.Exit(code)
}

// span is a range of addresses.
type span struct{ from, to uintptr }

// mappings lists where a file is mapped.
func mappings(t *testing.T, path string) (spans []span) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Skip("this system doesn't list what is mapped:", err)
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var s span
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &s.from, &s.to); err == nil &&
			strings.Contains(lines.Text(), path) {
			spans = append(spans, s)
		}
	}
	return spans
}

func inside(spans []span, from, size uintptr) bool {
	for _, s := range spans {
		if s.from <= from && from+size <= s.to {
			return true
		}
	}
	return false
}

// eachBuffer visits the buffers of arrow data and of its children.
func eachBuffer(data arrow.ArrayData, visit func([]byte)) {
	for _, buffer := range data.Buffers() {
		if buffer != nil && buffer.Len() > 0 {
			visit(buffer.Bytes())
		}
	}
	for _, child := range data.Children() {
		eachBuffer(child, visit)
	}
}

// TestUseDoesNotCopy proves for every type that all values lie in the file's pages, and that the
// file is unmapped when the last holder of a record batch lets go, not before.
func TestUseDoesNotCopy(t *testing.T) {
	files := sampleFiles(t)
	delete(files, "no rows") // holds no values, so that nobody keeps it mapped
	for name, file := range files {
		path := filepath.Join(t.TempDir(), "x.arrow")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		var kept arrow.Record
		var spans []span
		err := Use(path, "", func(rec arrow.Record) error {
			spans = mappings(t, path)
			for i, column := range rec.Columns() {
				eachBuffer(column.Data(), func(b []byte) {
					if !inside(spans, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))) {
						t.Errorf("%s: column %q was copied", name, rec.ColumnName(i))
					}
				})
			}
			rec.Retain()
			kept = rec
			return nil
		})
		if err != nil || len(spans) != 1 {
			t.Fatal(name, err, spans)
		}
		if now := mappings(t, path); len(now) != 1 || now[0] != spans[0] {
			t.Errorf("%s: the file was mapped at %v, and is at %v while a record is kept",
				name, spans, now)
		}
		kept.Release()
		if now := mappings(t, path); len(now) != 0 {
			t.Errorf("%s: the file is still mapped at %v", name, now)
		}
	}
}

// bigFile writes a file of two columns of lists of float32, of so many MiB in all.
func bigFile(t testing.TB, folder string, mebibytes int) string {
	const rows = 16
	values := make([]float32, mebibytes<<20/8)
	for i := range values {
		values[i] = float32(i % 1000)
	}
	floats := array.NewFloat32Builder(memory.DefaultAllocator)
	floats.AppendValues(values, nil)
	data := floats.NewArray().Data()
	kind := arrow.FixedSizeListOf(int32(len(values)/rows), arrow.PrimitiveTypes.Float32)
	list := array.NewData(kind, rows, []*memory.Buffer{nil}, []arrow.ArrayData{data}, 0, 0)
	var c builtColumns
	for _, name := range []string{"y", "g"} {
		c.fields = append(c.fields, arrow.Field{Name: name, Type: kind})
		c.arrays = append(c.arrays, array.MakeFromData(list))
	}
	path := filepath.Join(folder, "big.arrow")
	if _, err := Write(path, c.record(sampleKind)); err != nil {
		t.Fatal(err)
	}
	return path
}

// bigValues are the values of the first column of bigFile, in the file's own pages.
func bigValues(rec arrow.Record) []float32 {
	return rec.Column(0).(*array.FixedSizeList).ListValues().(*array.Float32).Float32Values()
}

// TestReadingAllocatesLittle proves that what reading allocates doesn't grow with the file.
func TestReadingAllocatesLittle(t *testing.T) {
	path := bigFile(t, t.TempDir(), 100)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := Use(path, sampleKind, func(rec arrow.Record) error {
		if n := len(bigValues(rec)); n != 100<<20/8 {
			return fmt.Errorf("%d values", n)
		}
		return nil
	})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 64<<10 {
		t.Errorf("reading a file of 100 MiB allocated %d bytes", allocated)
	}
}

// TestTruncationWhileReading proves that a file which is cut short in the middle of a read is one
// error, where the pages are missed and where nothing is missed.
func TestTruncationWhileReading(t *testing.T) {
	for name, step := range map[string]func([]float32) error{
		"missed": func(values []float32) error {
			sum := float32(0)
			for _, value := range values {
				sum += value
			}
			return fmt.Errorf("nothing was missed, the sum is %v", sum)
		},
		"unnoticed": func([]float32) error { return nil },
	} {
		for _, size := range []int64{0, 1 << 20} {
			path := bigFile(t, t.TempDir(), 2)
			err := Use(path, sampleKind, func(rec arrow.Record) error {
				if err := os.Truncate(path, size); err != nil {
					return err
				}
				return step(bigValues(rec))
			})
			changed := path + " was changed while it was read"
			if fault.CodeOf(err) != fault.File || !strings.Contains(err.Error(), changed) {
				t.Errorf("%s, cut to %d bytes: %v", name, size, err)
			}
		}
	}
}

// TestTruncationOfACopy proves the same where values are copied, while the checksum is made and
// after it, and that the memory of the copy is given back.
func TestTruncationOfACopy(t *testing.T) {
	alloc := memory.NewCheckedAllocator(mallocator.NewMallocator())
	defer alloc.AssertSize(t, 0)
	for name, cut := range map[string]func(m *mapping, truncate func()) (arrow.Record, error){
		"before": func(m *mapping, truncate func()) (arrow.Record, error) {
			truncate()
			return m.read(sampleKind, copier(alloc), alloc)
		},
		"after": func(m *mapping, truncate func()) (arrow.Record, error) {
			return m.read(sampleKind, func(bytes []byte) *memory.Buffer {
				truncate()
				return copier(alloc)(bytes)
			}, alloc)
		},
	} {
		path := bigFile(t, t.TempDir(), 2)
		err := withMapping(path, func(m *mapping) error {
			_, err := cut(m, func() {
				if err := os.Truncate(path, 1<<20); err != nil {
					t.Error(err)
				}
			})
			return err
		})
		if fault.CodeOf(err) != fault.File ||
			!strings.Contains(err.Error(), "was changed while it was read") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReplacementWhileReading proves that a file renamed over the one being read, or its removal,
// changes nothing.
func TestReplacementWhileReading(t *testing.T) {
	path, file := writeSample(t)
	for name, replaceIt := range map[string]func() error{
		"renamed over": func() error {
			typed := typedColumns(0, 3)
			_, err := Write(path, typed.record(sampleKind))
			return err
		},
		"removed": func() error { return os.Remove(path) },
	} {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		err := Use(path, sampleKind, func(rec arrow.Record) error {
			if err := replaceIt(); err != nil {
				return err
			}
			if scores := rec.Column(2).(*array.Float64); scores.Value(4) != 4 {
				return fmt.Errorf("the scores are %v", scores)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUseNamesTheFile proves that an error of the step keeps its code and gets the file's name, and
// that a defect in it is no error of the file.
func TestUseNamesTheFile(t *testing.T) {
	path, _ := writeSample(t)
	err := Use(path, sampleKind, func(arrow.Record) error {
		return fault.New(fault.Layer, "no such layer")
	})
	if fault.CodeOf(err) != fault.Layer || err.Error() != "agflow:layer: "+path+": no such layer" {
		t.Error(err)
	}
	err = Use(path, sampleKind, func(arrow.Record) error { panic(errors.New("oops")) })
	if fault.CodeOf(err) != fault.Internal {
		t.Error(err)
	}
}

// A large file is opened over its own pages, which stay when another file takes its name, and a
// small one is copied; both equal what was written.
func TestOpenMapsLargeFiles(t *testing.T) {
	defer func(before int64) { mappedFrom = before }(mappedFrom)
	want := sampleRecord(memory.DefaultAllocator)
	defer want.Release()
	for name, from := range map[string]int64{"large": 1, "small": 1 << 40} {
		mappedFrom = from
		path := filepath.Join(t.TempDir(), "x.arrow")
		if _, err := Write(path, want); err != nil {
			t.Fatal(err)
		}
		alloc := memory.NewCheckedAllocator(memory.DefaultAllocator)
		rec, err := Open(path, sampleKind, alloc)
		if err != nil {
			t.Fatal(err)
		}
		if copied := alloc.CurrentAlloc() > 0; copied != (name == "small") {
			t.Errorf("%s: %d bytes were copied", name, alloc.CurrentAlloc())
		}
		if mapped := len(mappings(t, path)) > 0; mapped != (name == "large") {
			t.Errorf("%s: mapped is %v", name, mapped)
		}
		if _, err := Write(path, want); err != nil { // in its place
			t.Fatal(err)
		}
		if !array.RecordEqual(rec, want) {
			t.Errorf("%s: got %v", name, rec)
		}
		rec.Release()
		if left := mappings(t, path); len(left) > 0 {
			t.Errorf("%s: still mapped", name)
		}
		alloc.AssertSize(t, 0)
	}
}

// What is wrong with a large file leaves nothing mapped.
func TestOpenRefusesDamagedLargeFiles(t *testing.T) {
	defer func(before int64) { mappedFrom = before }(mappedFrom)
	mappedFrom = 1
	path := filepath.Join(t.TempDir(), "x.arrow")
	rec := sampleRecord(memory.DefaultAllocator)
	defer rec.Release()
	size, err := Write(path, rec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, otherKind, memory.DefaultAllocator); fault.CodeOf(err) != fault.File {
		t.Error("another kind:", err)
	}
	if err := os.Truncate(path, size-1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, sampleKind, memory.DefaultAllocator); fault.CodeOf(err) != fault.File {
		t.Error("cut short:", err)
	}
	if left := mappings(t, path); len(left) > 0 {
		t.Error("still mapped")
	}
}
