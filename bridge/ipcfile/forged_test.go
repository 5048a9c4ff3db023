package ipcfile

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/fuzzing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// setChecksum gives changed bytes their right checksum, as a forger would; false when there is no
// place for it.
func setChecksum(file []byte) bool {
	at := checksums(file)
	if len(at) != 2 {
		return false
	}
	digits := digest(file, at[0], at[1])
	copy(file[at[0]:], digits)
	copy(file[at[1]:], digits)
	return true
}

// allocated is what the process has allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// parseForged parses bytes as a file and uses what comes out. It proves that the end is a coded
// error with the name, or one table however it is placed in memory, and that no more is allocated
// than a small multiple of the bytes.
func parseForged(t testing.TB, file []byte) (rec arrow.Record, err error) {
	var grown uint64
	// the runtime counts small allocations late, so that those made before may show once
	for range 5 {
		before := allocated()
		rec, err = parse("forged.arrow", "", file, memory.NewBufferBytes, memory.DefaultAllocator)
		if grown = allocated() - before; grown < uint64(1<<16+40*len(file)) {
			break
		}
	}
	if grown > uint64(1<<16+40*len(file)) {
		t.Fatalf("a file of %d bytes allocated %d", len(file), grown)
	}
	if err != nil {
		if fault.CodeOf(err) != fault.File || !strings.Contains(err.Error(), "forged.arrow") {
			t.Fatal(err)
		}
		return nil, err
	}
	copied, err := parse("forged.arrow", "", file, copier(memory.DefaultAllocator),
		memory.DefaultAllocator)
	if err != nil || !copied.Schema().Equal(rec.Schema()) ||
		!slices.EqualFunc(copied.Columns(), rec.Columns(), sameBuffers) {
		t.Fatalf("the copy differs: %v, %v, %v", err, copied, rec)
	}
	return rec, nil
}

func sameBuffers(a, b arrow.Array) bool {
	collect := func(values arrow.Array) (all [][]byte) {
		eachBuffer(values.Data(), func(b []byte) { all = append(all, b) })
		return all
	}
	return a.Len() == b.Len() && a.NullN() == b.NullN() &&
		slices.EqualFunc(collect(a), collect(b), bytes.Equal)
}

// TestForgedFiles proves for files of every kind that the parser alone stands every change of a
// byte and every truncation, and that reading from the disk does when the checksum was made right
// again.
func TestForgedFiles(t *testing.T) {
	for name, file := range sampleFiles(t) {
		t.Run(name, func(t *testing.T) {
			if _, err := parseForged(t, file); err != nil {
				t.Fatal(err)
			}
			for at, b := range file {
				file[at] = ^b
				_, _ = parseForged(t, file)
				file[at] = b
				_, _ = parseForged(t, file[:at])
			}
		})
	}
}

// TestForgedWithItsChecksum proves that reading from the disk takes a forged file with a right
// checksum for what it is.
func TestForgedWithItsChecksum(t *testing.T) {
	path, file := writeSample(t)
	for at := 0; at < len(file); at += 3 {
		b := file[at]
		file[at] = ^b
		if setChecksum(file) {
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(path); err != nil {
				t.Fatal(err)
			}
			_, want := parse(path, sampleKind, file, memory.NewBufferBytes, memory.DefaultAllocator)
			rec, err := Read(path, sampleKind, memory.DefaultAllocator)
			if (want == nil) != (err == nil) || err != nil && err.Error() != want.Error() {
				t.Fatalf("byte %d: %v, the parser says %v", at, err, want)
			}
			if err == nil {
				rec.Release()
			}
		}
		file[at] = b
	}
}

// parts opens a sound file; the slices lie in its bytes, so that writing to them forges it.
func parts(t *testing.T, file []byte) (schema, message object, body []byte) {
	footer, rest, err := openFooter(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := allBatches(footer, rest)
	if err != nil {
		t.Fatal(err)
	}
	return footer.child(1), openMessage(blocks[0].message), blocks[0].body
}

// wideFile has many columns, the first with a long name.
func wideFile(t *testing.T) []byte {
	var c builtColumns
	c.floats(memory.DefaultAllocator, strings.Repeat("long", 1<<12), make([]float64, 1<<9))
	for range 500 {
		c.fields = append(c.fields, arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Float64})
		c.arrays = append(c.arrays, c.arrays[0])
	}
	rec := c.record(sampleKind)
	return fileOf(t, fileSchema(rec.Schema()), rec)
}

// amplifiers count parts of a file many times over, to allocate much by a little.
var amplifiers = map[string]struct {
	forge func(schema, message object, body []byte)
	says  string
}{
	"all columns are one": {func(schema, _ object, _ []byte) {
		offsets, at := schema.vector(1, 4)
		first := at + int(binary.LittleEndian.Uint32(offsets))
		for i := 4; i < len(offsets); i += 4 {
			binary.LittleEndian.PutUint32(offsets[i:], uint32(first-at-i))
		}
	}, "overlap"},
	"all buffers are one": {func(_, message object, _ []byte) {
		buffers, _ := message.vector(2, bufferBytes)
		for i := 2 * bufferBytes; i < len(buffers); i += 2 * bufferBytes {
			copy(buffers[i:], buffers[:2*bufferBytes])
		}
	}, "belong to buffers before it"},
	"the most columns": {func(schema, _ object, _ []byte) {
		at := schema.follow(1)
		binary.LittleEndian.PutUint32(schema.in.bytes[at:], math.MaxUint32)
	}, "overlap"},
	"fewer columns": {func(schema, _ object, _ []byte) {
		at := schema.follow(1)
		binary.LittleEndian.PutUint32(schema.in.bytes[at:], 10)
	}, "more columns than its schema"},
	"the most rows": {func(_, message object, _ []byte) {
		binary.LittleEndian.PutUint64(message.in.bytes[message.field(0, 8):], math.MaxInt64)
	}, "claims 9223372036854775807 rows"},
	"many rows": {func(_, message object, _ []byte) {
		binary.LittleEndian.PutUint64(message.in.bytes[message.field(0, 8):], maxValues)
		nodes, _ := message.vector(1, nodeBytes)
		binary.LittleEndian.PutUint64(nodes, maxValues)
	}, "has a buffer of 4096 bytes, expected 8796093022208"},
	"a buffer past the end": {func(_, message object, body []byte) {
		buffers, _ := message.vector(2, bufferBytes)
		binary.LittleEndian.PutUint64(buffers[bufferBytes:], uint64(len(body)))
	}, "of a body of"},
	"a buffer before the beginning": {func(_, message object, _ []byte) {
		buffers, _ := message.vector(2, bufferBytes)
		binary.LittleEndian.PutUint64(buffers[bufferBytes:], 1<<64-8)
	}, "of a body of"},
	"a buffer between numbers": {func(_, message object, _ []byte) {
		buffers, _ := message.vector(2, bufferBytes)
		binary.LittleEndian.PutUint64(buffers[bufferBytes:], 4)
		binary.LittleEndian.PutUint64(buffers[bufferBytes+8:], 1<<12)
	}, "not a multiple of 8"},
}

// TestForgedAmplifiers proves that each of them is refused.
func TestForgedAmplifiers(t *testing.T) {
	for name, test := range amplifiers {
		file := wideFile(t)
		test.forge(parts(t, file))
		if _, err := parseForged(t, file); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestForgedTexts proves that the offsets of texts are checked before a text is made, and texts for
// being UTF-8.
func TestForgedTexts(t *testing.T) {
	for name, forge := range map[string]func(offsets []int32, letters []byte){
		"negative":  func(offsets []int32, _ []byte) { offsets[0] = -1 },
		"falling":   func(offsets []int32, _ []byte) { offsets[2] = 1 },
		"too far":   func(offsets []int32, _ []byte) { offsets[2] = math.MaxInt32 },
		"last":      func(offsets []int32, _ []byte) { offsets[5] = math.MaxInt32 },
		"below 0":   func(offsets []int32, _ []byte) { offsets[5] = -5 },
		"no letter": func(_ []int32, letters []byte) { letters[3] = 0xff },
	} {
		_, file := writeSample(t)
		rec, err := parseForged(t, file)
		if err != nil {
			t.Fatal(err)
		}
		buffers := rec.Column(0).Data().Buffers()
		forge(arrow.Int32Traits.CastFromBytes(buffers[1].Bytes()), buffers[2].Bytes())
		if _, err := parseForged(t, file); err == nil ||
			!strings.Contains(err.Error(), `column "layer" has a`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestShortestFiles proves that a file of nothing, or of the shortest ends, is refused.
func TestShortestFiles(t *testing.T) {
	for _, file := range []string{"", magic, magic + magic, magic + "\x00\x00" +
		"\x00\x00\x00\x00" + magic, magic + "\x00\x00" + "\xff\xff\xff\xff" + magic,
		strings.Repeat("\xff", 64)} {
		if _, err := parseForged(t, []byte(file)); err == nil {
			t.Errorf("%q was read", file)
		}
	}
}

// FuzzParse proves that no bytes whatever crash the parser or make it allocate much.
func FuzzParse(f *testing.F) {
	fuzzing.Begin(f)
	for _, file := range sampleFiles(f) {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file []byte) { _, _ = parseForged(t, file) })
}

// FuzzRead proves the same of reading from the disk, with the right checksum where there is a place
// for one, and that Read and Use never take what Verify refuses.
func FuzzRead(f *testing.F) {
	fuzzing.Begin(f)
	for _, file := range sampleFiles(f) {
		f.Add(file)
	}
	f.Add([]byte(checksumPrefix + checksumZeros + checksumPrefix + checksumZeros))
	f.Fuzz(func(t *testing.T, file []byte) {
		setChecksum(file)
		path := filepath.Join(t.TempDir(), "x.arrow")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		_, verified := Verify(path)
		rec, err := Read(path, "", memory.DefaultAllocator)
		used := Use(path, "", func(mapped arrow.Record) error {
			if !slices.EqualFunc(rec.Columns(), mapped.Columns(), sameBuffers) {
				t.Error("Read and Use differ")
			}
			return nil
		})
		if (err == nil) != (used == nil) || verified != nil && err == nil {
			t.Errorf("Verify: %v, Read: %v, Use: %v", verified, err, used)
		}
		if err == nil {
			rec.Release()
		}
	})
}
