package ipcfile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// fixedRecord has rows of columns of several widths.
func fixedRecord(rows int) arrow.Record {
	r := rand.New(rand.NewPCG(1, 2))
	var c builtColumns
	wide, bits := array.NewInt64Builder(memory.DefaultAllocator),
		array.NewBooleanBuilder(memory.DefaultAllocator)
	narrow := array.NewFloat32Builder(memory.DefaultAllocator)
	for range rows {
		wide.Append(r.Int64())
		bits.Append(r.IntN(2) == 0)
		narrow.Append(r.Float32())
	}
	c.put("wide", wide)
	c.put("bits", bits)
	c.put("narrow", narrow)
	return c.record(sampleKind)
}

// putInParts puts so many rows of a record batch at a time.
func putInParts(rec arrow.Record, rows int) func(*Parts) error {
	return func(p *Parts) error {
		if err := p.Begin(rec.Schema(), int(rec.NumRows())); err != nil {
			return err
		}
		for first := int64(0); first < rec.NumRows(); first += int64(rows) {
			part := rec.NewSlice(first, min(first+int64(rows), rec.NumRows()))
			defer part.Release()
			if err := p.Put(part); err != nil {
				return err
			}
		}
		return nil
	}
}

// A file written in parts has the bytes of one that was written at once.
func TestPartsAreTheWholeFile(t *testing.T) {
	folder := t.TempDir()
	whole, parts := filepath.Join(folder, "whole"), filepath.Join(folder, "parts")
	for _, rows := range []int{0, 1, 8, 61, 4096} {
		rec := fixedRecord(rows)
		defer rec.Release()
		size, err := Write(whole, rec)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{8, 64, 4096} {
			written, err := WriteParts(parts, putInParts(rec, at))
			if err != nil || written != size {
				t.Fatal(rows, at, written, size, err)
			}
			a, _ := os.ReadFile(whole)
			b, _ := os.ReadFile(parts)
			if !bytes.Equal(a, b) {
				t.Errorf("%d rows, %d at a time: other bytes", rows, at)
			}
		}
	}
}

// What goes wrong leaves an older file as it was, and no other.
func TestPartsThatFailWriteNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.arrow")
	if err := os.WriteFile(path, []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	rec, half := fixedRecord(64), fixedRecord(32)
	defer rec.Release()
	defer half.Release()
	broken := errors.New("broken")
	for name, step := range map[string]func(*Parts) error{
		"nothing": func(*Parts) error { return nil },
		"half": func(p *Parts) error {
			return errors.Join(p.Begin(rec.Schema(), 64), p.Put(half))
		},
		"too much": func(p *Parts) error {
			return errors.Join(p.Begin(rec.Schema(), 32), p.Put(rec))
		},
		"uneven": putInParts(rec, 12),
		"broken": func(p *Parts) error {
			return errors.Join(p.Begin(rec.Schema(), 64), p.Put(half), broken)
		},
	} {
		if _, err := WriteParts(path, step); err == nil {
			t.Errorf("%s was written", name)
		} else if name == "broken" && !errors.Is(err, broken) ||
			name != "broken" && fault.CodeOf(err) != fault.Internal {
			t.Errorf("%s: %v", name, err)
		}
		files, _ := os.ReadDir(filepath.Dir(path))
		content, _ := os.ReadFile(path)
		if len(files) != 1 || string(content) != "older" {
			t.Errorf("%s: %d files, %q", name, len(files), content)
		}
	}
}

// The memory of a file in parts is that of its widest column, which is never touched, and a part.
func TestPartsAreNotCollected(t *testing.T) {
	const rows, part = 1 << 20, 1 << 12
	rec := fixedRecord(part)
	defer rec.Release()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := WriteParts(filepath.Join(t.TempDir(), "x.arrow"), func(p *Parts) error {
		if err := p.Begin(rec.Schema(), rows); err != nil {
			return err
		}
		for range rows / part {
			if err := p.Put(rec); err != nil {
				return err
			}
		}
		return nil
	})
	runtime.ReadMemStats(&after)
	if bytes := after.TotalAlloc - before.TotalAlloc; err != nil || bytes > rows*8+rows*8/2 {
		t.Errorf("%d rows of 12 bytes allocate %d bytes, %v", rows, bytes, err)
	}
}
