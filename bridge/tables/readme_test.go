package tables

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// documented are the columns of every kind, "name type", as the README should list them. Those of
// tensor files and of logits are of more than one type.
func documented(t *testing.T) map[string][]string {
	columns := map[string][]string{
		KindLogits: {"logits list of T"},
		KindTensor: {
			"<layer>.y list of T", "<layer>.g list of T",
			"<layer>.w0 list of T", "<layer>.w1 list of T",
		},
	}
	for _, field := range frontierColumns {
		columns[KindFrontier] = append(columns[KindFrontier], field.Name+" "+field.Type.String())
	}
	for kind, rec := range sampleRecords(t, memory.DefaultAllocator) {
		for _, field := range rec.Schema().Fields() {
			if strings.HasPrefix(field.Name, priorPrefix) {
				field.Name = priorPrefix + "NAME"
			}
			columns[kind] = append(columns[kind], field.Name+" "+field.Type.String())
		}
		columns[kind] = slices.Compact(columns[kind])
	}
	return columns
}

var (
	quoted = regexp.MustCompile("`([^`]+)`")
	key    = regexp.MustCompile(`"(agflow\.[a-z_]+)"`)
)

// columnsIn reads the columns that the tables of a section list.
func columnsIn(section string) (columns []string) {
	for line := range strings.Lines(section) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) != 3 {
			continue
		}
		for _, name := range quoted.FindAllStringSubmatch(cells[0], -1) {
			columns = append(columns, name[1]+" "+cells[1])
		}
	}
	return columns
}

// TestReadmeListsEveryColumn proves that the README lists the columns of every kind with their
// types, in their order, and no others.
func TestReadmeListsEveryColumn(t *testing.T) {
	content, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := documented(t)
	if len(want) != len(checks) {
		t.Errorf("%d kinds are documented here, there are %d", len(want), len(checks))
	}
	for kind := range checks {
		_, after, found := strings.Cut(string(content), "\n### "+kind+"\n")
		if !found {
			t.Errorf("the README has no section %s", kind)
			continue
		}
		section, _, _ := strings.Cut(after, "\n### ")
		if got := columnsIn(section); !slices.Equal(got, want[kind]) {
			t.Errorf("the README lists for %s\n%q\nexpected\n%q", kind, got, want[kind])
		}
	}
}

// TestReadmeNamesEveryKey proves that the README names every key of metadata in the code.
func TestReadmeNamesEveryKey(t *testing.T) {
	content, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var sources []string
	for _, folder := range []string{".", "../ipcfile"} {
		found, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, found...)
	}
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range key.FindAllSubmatch(source, -1) {
			if !strings.Contains(string(content), "`"+string(found[1])+"`") {
				t.Errorf("the README doesn't name the key %s of %s", found[1], path)
			}
		}
	}
}
