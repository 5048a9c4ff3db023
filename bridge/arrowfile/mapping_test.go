package arrowfile

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
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
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
		t.Skip("this system doesn't tell what is mapped:", err)
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var s span
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &s.from, &s.to); err == nil && strings.Contains(lines.Text(), path) {
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

// TestUseDoesNotCopy proves for every kind that all values lie in the file's pages, and that the file is unmapped when
// the last holder of a record batch lets go, not before.
func TestUseDoesNotCopy(t *testing.T) {
	for name, file := range sampleFiles(t) {
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
			t.Errorf("%s: the file was mapped at %v, and is at %v while a record is kept", name, spans, now)
		}
		kept.Release()
		if now := mappings(t, path); len(now) != 0 {
			t.Errorf("%s: the file is still mapped at %v", name, now)
		}
	}
}

// bigTensorFile writes a tensor file of two columns of float32, of so many MiB in all.
func bigTensorFile(t testing.TB, folder string, mebibytes int) string {
	const rows = 16
	l := statistics.Layer{Name: "mlp", Group: "mlp", Units: 1024, UnitWidth: 1, Parts: 1, UnitMACs: 1, UnitParams: 1}
	values := make([]float32, mebibytes<<20/8)
	for i := range values {
		values[i] = float32(i % 1000)
	}
	var f tensorFile
	put(&f, l, "y", 0, rows, values)
	put(&f, l, "g", 0, rows, values)
	path := filepath.Join(folder, "batch-0.arrow")
	if _, err := Write(path, f.record(sampleModel, nil)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestReadingTensorsAllocatesLittle proves that what reading allocates doesn't grow with the file.
func TestReadingTensorsAllocatesLittle(t *testing.T) {
	path := bigTensorFile(t, t.TempDir(), 100)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := Use(path, KindTensor, func(rec arrow.Record) error {
		columns, err := tensorColumns(rec)
		if err == nil && columns[0].view.Rows() != 12800 {
			err = fmt.Errorf("%d rows", columns[0].view.Rows())
		}
		return err
	})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 64<<10 {
		t.Errorf("reading a file of 100 MiB allocated %d bytes", allocated)
	}
}

// TestTruncationWhileReading proves that a file which is cut short in the middle of a read is one error: where the
// pages are missed, on the goroutine of the read or on workers, and where nothing is missed.
func TestTruncationWhileReading(t *testing.T) {
	for name, step := range map[string]func([]tensorColumn) error{
		"on the reader's goroutine": func(columns []tensorColumn) error {
			sum := 0.0
			var row []float64
			for r := range columns[0].view.Rows() {
				row = columns[0].view.Row(r, row)
				sum += row[0]
			}
			return fmt.Errorf("nothing was missed, the sum is %v", sum)
		},
		"on workers": func(columns []tensorColumn) error {
			sums, err := statistics.NewAccumulator(sampleModel, []statistics.Layer{columns[0].layer}, 2)
			if err != nil {
				return err
			}
			return sums.Add(0, 16, columns[0].view, columns[1].view)
		},
		"unnoticed": func([]tensorColumn) error { return nil },
	} {
		for _, size := range []int64{0, 1 << 20} {
			path := bigTensorFile(t, t.TempDir(), 2)
			err := Use(path, KindTensor, func(rec arrow.Record) error {
				columns, err := tensorColumns(rec)
				if err != nil {
					return err
				}
				if err := os.Truncate(path, size); err != nil {
					return err
				}
				return step(columns)
			})
			if fault.CodeOf(err) != fault.File || !strings.Contains(err.Error(), path+" was changed while it was read") {
				t.Errorf("%s, cut to %d bytes: %v", name, size, err)
			}
		}
	}
}

// TestTruncationOfACopy proves the same where values are copied, while the checksum is made and after it, and that the
// memory of the copy is given back.
func TestTruncationOfACopy(t *testing.T) {
	alloc := memory.NewCheckedAllocator(mallocator.NewMallocator())
	defer alloc.AssertSize(t, 0)
	for name, cut := range map[string]func(m *mapping, truncate func()) (arrow.Record, error){
		"before": func(m *mapping, truncate func()) (arrow.Record, error) {
			truncate()
			return m.read(KindTensor, copier(alloc))
		},
		"after": func(m *mapping, truncate func()) (arrow.Record, error) {
			return m.read(KindTensor, func(bytes []byte) *memory.Buffer {
				truncate()
				return copier(alloc)(bytes)
			})
		},
	} {
		path := bigTensorFile(t, t.TempDir(), 2)
		err := withMapping(path, func(m *mapping) error {
			_, err := cut(m, func() {
				if err := os.Truncate(path, 1<<20); err != nil {
					t.Error(err)
				}
			})
			return err
		})
		if fault.CodeOf(err) != fault.File || !strings.Contains(err.Error(), "was changed while it was read") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReplacementWhileReading proves that a file renamed over the one being read, or its removal, changes nothing.
func TestReplacementWhileReading(t *testing.T) {
	path, file := writeSample(t)
	for name, replaceIt := range map[string]func() error{
		"renamed over": func() error { _, err := Write(path, sampleTensor[float32]()); return err },
		"removed":      func() error { return os.Remove(path) },
	} {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		err := Use(path, KindScores, func(rec arrow.Record) error {
			if err := replaceIt(); err != nil {
				return err
			}
			s, err := ScoresFromRecord(rec)
			if err == nil && s.Score[4] != sampleScores().Score[4] {
				err = fmt.Errorf("the scores are %v", s.Score)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUseNamesTheFile proves that an error of the step keeps its code and gets the file's name, and that a defect in
// it is no error of the file.
func TestUseNamesTheFile(t *testing.T) {
	path, _ := writeSample(t)
	err := Use(path, KindScores, func(arrow.Record) error { return fault.New(fault.Layer, "no such layer") })
	if fault.CodeOf(err) != fault.Layer || err.Error() != "agflow:layer: "+path+": no such layer" {
		t.Error(err)
	}
	if err := Use(path, KindScores, func(arrow.Record) error { panic(errors.New("oops")) }); fault.CodeOf(err) != fault.Internal {
		t.Error(err)
	}
}

// TestViewsOfNothing proves that a tensor file of no images is one, and reads as views of no rows.
func TestViewsOfNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.arrow")
	if _, err := Write(path, sampleTensor[tensor.Float16]().NewSlice(1, 1)); err != nil {
		t.Fatal(err)
	}
	err := Use(path, KindTensor, func(rec arrow.Record) error {
		columns, err := tensorColumns(rec)
		if err == nil && columns[1].view.Rows() != 0 {
			t.Errorf("%d rows", columns[1].view.Rows())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
