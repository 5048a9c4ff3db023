package tables

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/fuzzing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// A parser is one kind of file that agflow reads: sound files of it, how a forger gives a changed
// one its checksum, and a reader that goes through all that is read. Every parser stands here, so
// that it meets every hostile file below.
type parser struct {
	sound map[string][]byte
	reset func(file []byte) bool // sets the checksum right; false where there is no place for it
	read  func(path string) error
}

func parsers(t testing.TB) map[string]parser {
	arrows := sampleFiles(t)
	for format := 1; format < ipcfile.Format; format++ {
		for name, path := range stored(t, format) {
			arrows[fmt.Sprint(name, " of format ", format)] = readFile(t, path)
		}
	}
	routers := map[string][]byte{}
	for format := 1; format < ipcfile.Format; format++ {
		name := fmt.Sprintf("router_format%d.json", format)
		routers[name] = readFile(t, "../../core/routing/testdata/"+name)
	}
	path := filepath.Join(t.TempDir(), "router.json")
	old, err := ReadRouter("../../core/routing/testdata/router_format3.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := WriteRouter(path, old); err != nil {
		t.Fatal(err)
	}
	routers["router.json"] = readFile(t, path)
	return map[string]parser{
		"Arrow file": {arrows, setChecksum, readTable},
		"router":     {routers, setDigits, readRouter},
	}
}

func readFile(t testing.TB, path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

var jsonDigits = regexp.MustCompile(`[0-9a-f]{64}`)

// setDigits makes the checksum of a JSON file right.
func setDigits(file []byte) bool {
	found := jsonDigits.FindAllIndex(file, -1)
	if len(found) != 1 {
		return false
	}
	place := file[found[0][0]:found[0][1]]
	copy(place, strings.Repeat("0", len(place)))
	sum := sha256.Sum256(file)
	hex.Encode(place, sum[:])
	return true
}

// readTable reads a file as its kind says, by every way there is.
func readTable(path string) error {
	if _, err := ipcfile.Inspect(path); err != nil {
		return err
	}
	alloc := mallocator.NewMallocator()
	rec, err := ipcfile.Read(path, "", alloc)
	if err != nil {
		return err
	}
	err = useTable(rec, alloc)
	rec.Release()
	if held := alloc.AllocatedBytes(); held != 0 {
		return fmt.Errorf("%d bytes are still held", held)
	}
	return err
}

func useTable(rec arrow.Record, alloc memory.Allocator) error {
	kind := ipcfile.Pairs(rec.Schema().Metadata())[ipcfile.KeyKind]
	if _, known := checks[kind]; !known {
		return fault.New(fault.Value, "there is no kind %q", kind)
	}
	current, err := Checked(kind, rec, alloc)
	if current != nil {
		current.Release()
	}
	return err
}

func readRouter(path string) error {
	router, err := ReadRouter(path)
	if err != nil {
		return err
	}
	if _, err := router.Encode(); err != nil {
		return err
	}
	return router.Validate()
}

// outcome is what became of a file.
type outcome string

const (
	refused outcome = "refused by its checksum"
	coded   outcome = "refused by its reader"
	taken   outcome = "read as another sound file"
)

// Limits of what a file may cost: bytes allocated for each of its own, above a small start, and
// time.
const (
	startBytes  = 1 << 19
	eachByte    = 400
	longestRead = 2 * time.Second
)

// try reads a hostile file and proves that the end is a coded error or a table, within the limits.
func try(t testing.TB, p parser, what, path string, file []byte) outcome {
	t.Helper()
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	start, before := time.Now(), allocated()
	err := p.read(path)
	if grown, limit := allocated()-before, uint64(startBytes+eachByte*len(file)); grown > limit {
		t.Errorf("%s: %d bytes allocated %d, expected at most %d", what, len(file), grown, limit)
	}
	if took := time.Since(start); took > longestRead {
		t.Errorf("%s: took %v", what, took)
	}
	switch code := fault.CodeOf(err); {
	case err == nil:
		return taken
	case code == fault.Internal:
		t.Errorf("%s: %v", what, err)
	case strings.Contains(err.Error(), "checksum"):
		return refused
	}
	return coded
}

// allocated is what the process has allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// mutations change a file as disks, transfers and forgers do.
var mutations = map[string]func(r *rand.Rand, file []byte) []byte{
	"a bit": func(r *rand.Rand, file []byte) []byte {
		file[r.IntN(len(file))] ^= 1 << r.IntN(8)
		return file
	},
	"a byte": func(r *rand.Rand, file []byte) []byte {
		file[r.IntN(len(file))] = byte(r.Uint32())
		return file
	},
	"the end is missing": func(r *rand.Rand, file []byte) []byte {
		return file[:r.IntN(len(file))]
	},
	"a part is missing": func(r *rand.Rand, file []byte) []byte {
		at := r.IntN(len(file))
		return slices.Delete(file, at, min(len(file), at+1+r.IntN(64)))
	},
	"a part is there twice": func(r *rand.Rand, file []byte) []byte {
		at := r.IntN(len(file))
		part := bytes.Clone(file[at:min(len(file), at+1+r.IntN(64))])
		return slices.Insert(file, at, part...)
	},
	"zeros": func(r *rand.Rand, file []byte) []byte {
		at := r.IntN(len(file))
		clear(file[at:min(len(file), at+1+r.IntN(512))])
		return file
	},
	"a telling number": func(r *rand.Rand, file []byte) []byte {
		at := r.IntN(max(1, len(file)-8)) &^ 7
		telling := []uint64{0, 1, 1 << 31, 1<<31 - 1, 1<<32 - 1, 1 << 40, 1 << 62, 1 << 63,
			1<<64 - 1, 0x7ff0000000000000, 0x7ff8000000000000, 0xfff0000000000000}
		if at+8 <= len(file) {
			binary.LittleEndian.PutUint64(file[at:], telling[r.IntN(len(telling))])
		}
		return file
	},
	"a telling word": func(r *rand.Rand, file []byte) []byte {
		words := []string{"null", "NaN", "-1", "1e999", "99999999999999999999", "\x1b[31m", "\x00",
			"\xff\xfe", "{}", "[[[[[[[[", `"`, "agflow.kind", "5"}
		at := r.IntN(len(file))
		copy(file[at:], words[r.IntN(len(words))])
		return file
	},
	"digits are others": func(r *rand.Rand, file []byte) []byte {
		for range 4 {
			at := r.IntN(len(file))
			for ; at < len(file); at++ {
				if file[at] >= '0' && file[at] <= '9' {
					file[at] = '0' + byte(r.IntN(10))
					break
				}
			}
		}
		return file
	},
}

// trials is how many hundred hostile files are tried: AGFLOW_TRIALS, 5 where it is not set.
func trials(t *testing.T) int {
	text := os.Getenv("AGFLOW_TRIALS")
	if text == "" {
		return 5
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("AGFLOW_TRIALS is %q, expected a whole number from 1", text)
	}
	return n
}

// TestHostileFiles proves that damaged and forged files of every kind and format, half of them with
// a right checksum, end in a coded error or in a sound table, within a multiple of their size and
// two seconds, and that none with a wrong checksum is read.
func TestHostileFiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	kinds := parsers(t)
	path := filepath.Join(t.TempDir(), "hostile")
	counts := map[string]map[outcome]int{}
	names, ways := slices.Sorted(maps.Keys(kinds)), slices.Sorted(maps.Keys(mutations))
	for i := range 100 * trials(t) {
		name := names[i%len(names)]
		p := kinds[name]
		sound := slices.Sorted(maps.Keys(p.sound))
		which, way := sound[random.IntN(len(sound))], ways[random.IntN(len(ways))]
		file := bytes.Clone(p.sound[which])
		for range 1 + random.IntN(3) {
			if len(file) > 0 {
				file = mutations[way](random, file)
			}
		}
		forged := i/len(names)%2 == 0 && p.reset(file)
		what := fmt.Sprintf("trial %d: %s %s, %s, checksum right: %v", i, name, which, way, forged)
		found := try(t, p, what, path, file)
		old := strings.Contains(which, "format") // of JSON, which has a checksum from format 4 on
		if found == taken && !forged && !(name == "router" && old) &&
			!bytes.Equal(bytes.TrimSpace(file), bytes.TrimSpace(p.sound[which])) {
			t.Errorf("%s: damage was not found", what)
		}
		if counts[name] == nil {
			counts[name] = map[outcome]int{}
		}
		counts[name][found]++
	}
	for _, name := range names {
		t.Log(name, counts[name])
	}
}

// TestEveryBitAndEveryLength proves for a small file of every kind that each changed bit and each
// missing end is one coded error.
func TestEveryBitAndEveryLength(t *testing.T) {
	path := filepath.Join(t.TempDir(), "damaged")
	for name, p := range parsers(t) {
		for which, file := range p.sound {
			if strings.Contains(which, "format") {
				continue // the same layout, without or with the same checksum
			}
			step := 1
			if testing.Short() {
				step = 211
			}
			for at := 0; at < len(file)-1; at += step {
				if found := try(t, p, which, path, file[:at]); found == taken {
					t.Fatalf("%s %s of %d bytes was read", name, which, at)
				}
				damaged := bytes.Clone(file)
				damaged[at] ^= 1 << (at % 8)
				if found := try(t, p, which, path, damaged); found == taken {
					t.Fatalf("%s %s: a flip at byte %d was not found", name, which, at)
				}
			}
		}
	}
}

// FuzzTables proves that no bytes whatever, with a right checksum, crash a reader of tables or make
// it costly.
func FuzzTables(f *testing.F) {
	fuzzing.Begin(f)
	p := parsers(f)["Arrow file"]
	for _, name := range slices.Sorted(maps.Keys(p.sound)) {
		f.Add(p.sound[name])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		setChecksum(file)
		try(t, p, "fuzzed", filepath.Join(t.TempDir(), "fuzzed.arrow"), file)
	})
}
