package ipcfile

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// TestRoundTrip proves that a file gives back the record batch it was made from, and every byte of
// memory.
func TestRoundTrip(t *testing.T) {
	alloc := memory.NewCheckedAllocator(mallocator.NewMallocator())
	defer alloc.AssertSize(t, 0)
	rec := sampleRecord(alloc)
	defer rec.Release()
	path := filepath.Join(t.TempDir(), "x.arrow")
	size, err := Write(path, rec)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != size {
		t.Errorf("Write returns %d bytes, the file has %v (%v)", size, info.Size(), err)
	}
	back, err := Read(path, sampleKind, alloc)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Release()
	if !array.RecordEqual(rec, back) || !rec.Schema().Equal(back.Schema()) {
		t.Errorf("wrote %v, read %v", rec, back)
	}
}

// TestSlicedRecord proves that a slice of a record batch is written as what it shows.
func TestSlicedRecord(t *testing.T) {
	rec := sampleRecord(memory.DefaultAllocator).NewSlice(1, 3)
	path := filepath.Join(t.TempDir(), "x.arrow")
	if _, err := Write(path, rec); err != nil {
		t.Fatal(err)
	}
	back, err := Read(path, sampleKind, memory.DefaultAllocator)
	if err != nil || !array.RecordEqual(rec, back) {
		t.Errorf("wrote %v, read %v, %v", rec, back, err)
	}
}

// TestEveryFlipAndTruncationIsRefused proves that no damage of one byte and no missing end gets
// past the checksum.
func TestEveryFlipAndTruncationIsRefused(t *testing.T) {
	for name, file := range sampleFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flipAndTruncate(t, file)
		})
	}
}

func flipAndTruncate(t *testing.T, file []byte) {
	path := filepath.Join(t.TempDir(), "x.arrow")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	set := func(at int, b byte) {
		if _, err := f.WriteAt([]byte{b}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	refuse := func(what string, at int) {
		err := Use(path, "", func(arrow.Record) error { return nil })
		if fault.CodeOf(err) != fault.File || !strings.Contains(err.Error(), path) {
			t.Fatalf("%s at byte %d: %v", what, at, err)
		}
	}
	for at, b := range file {
		for _, damage := range []byte{^b, b ^ 1<<(at%8)} {
			file[at] = damage
			if err := verify(path, file); fault.CodeOf(err) != fault.File {
				t.Fatalf("byte %d is %#x, not %#x: %v", at, damage, b, err)
			}
		}
		file[at] = b
		if at%16 == 0 {
			set(at, ^b)
			refuse("a flip", at)
			set(at, b)
		}
	}
	set(len(file), 0)
	refuse("an added byte", len(file))
	for at := len(file) - 1; at >= 0; at-- {
		if err := f.Truncate(int64(at)); err != nil {
			t.Fatal(err)
		}
		refuse("truncation", at)
	}
}

// TestForeignFilesAreRefused proves that nothing but agflow's own files is parsed.
func TestForeignFilesAreRefused(t *testing.T) {
	folder := t.TempDir()
	foreign := filepath.Join(folder, "foreign.arrow")
	f, err := os.Create(foreign)
	if err != nil {
		t.Fatal(err)
	}
	rec := sampleRecord(memory.DefaultAllocator)
	w, err := ipc.NewFileWriter(f, ipc.WithSchema(rec.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if read, err := Read(foreign, "", memory.DefaultAllocator); err != nil ||
		!array.RecordEqual(read, rec) {
		t.Error(read, err)
	}
	for path, code := range map[string]fault.Code{
		folder: fault.IO, filepath.Join(folder, "missing"): fault.IO,
		"/dev/null": fault.IO,
	} {
		if _, err := Read(path, "", memory.DefaultAllocator); fault.CodeOf(err) != code {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestOtherKindIsRefused(t *testing.T) {
	path, _ := writeSample(t)
	_, err := Read(path, otherKind, memory.DefaultAllocator)
	if fault.CodeOf(err) != fault.File {
		t.Errorf("%v", err)
	}
	info, err := Inspect(path)
	if err != nil || info.Kind != sampleKind || info.Rows != 5 || len(info.Columns) != 3 {
		t.Errorf("%+v, %v", info, err)
	}
}

// TestEqualTablesMakeEqualFiles proves that a file holds nothing of its moment.
func TestEqualTablesMakeEqualFiles(t *testing.T) {
	_, first := writeSample(t)
	_, other := writeSample(t)
	if string(first) != string(other) {
		t.Error("two files of one table differ")
	}
}

// TestFailedWriteLeavesNothing proves for a full disk, missing folders and a name taken by a
// folder: code io, no temporary file, and the older file as it was.
func TestFailedWriteLeavesNothing(t *testing.T) {
	if os.Getenv(inItsOwnProcess) == "" {
		// The limit that stands for a full disk would hit the test's own log, too.
		child := exec.Command(os.Args[0], "-test.run=^TestFailedWriteLeavesNothing$")
		child.Env = append(os.Environ(), inItsOwnProcess+"=1")
		if output, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		return
	}
	folder := t.TempDir()
	old, taken := filepath.Join(folder, "old.arrow"), filepath.Join(folder, "taken")
	if err := os.WriteFile(old, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(taken, "inside"), 0o700); err != nil {
		t.Fatal(err)
	}
	rec := sampleRecord(memory.DefaultAllocator)
	for _, path := range []string{
		filepath.Join(folder, "none", "x.arrow"), filepath.Join(old, "x.arrow"), "/proc/x.arrow",
		taken,
	} {
		if _, err := Write(path, rec); fault.CodeOf(err) != fault.IO {
			t.Errorf("%s: %v", path, err)
		}
	}
	withFullDisk(t, func() {
		_, err := Write(old, rec)
		if fault.CodeOf(err) != fault.IO || !strings.Contains(err.Error(), "room") {
			t.Errorf("full disk: %v", err)
		}
	})
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if text, err := os.ReadFile(old); err != nil || string(text) != "old" {
		t.Errorf("the older file is now %q, %v", text, err)
	}
}

const inItsOwnProcess = "AGFLOW_TEST_FULL_DISK"

// withFullDisk lets no file grow past 512 bytes, which to a writer is what a full disk is.
func withFullDisk(t *testing.T, step func()) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	small := syscall.Rlimit{Cur: 512, Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	step()
}

// TestTextOfAChecksumIsRefused proves that a name which looks like a checksum can't make a file
// that never verifies.
func TestTextOfAChecksumIsRefused(t *testing.T) {
	var c builtColumns
	c.floats(memory.DefaultAllocator, checksumPrefix+checksumZeros, []float64{1})
	folder := t.TempDir()
	_, err := Write(filepath.Join(folder, "x.arrow"), c.record(sampleKind))
	if fault.CodeOf(err) != fault.Value {
		t.Errorf("%v", err)
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}
