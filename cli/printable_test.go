package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode"

	"agflow/bridge/ipcfile"
	"agflow/bridge/tables"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// escapes steer terminals: a colour, a title, the 8-bit form of both, a line that is written over,
// and one that is read backwards.
var escapes = []string{"\x1b[31mred", "\x1b]0;title\a", "\u009b31m", "over\rwritten", "\b\b\b",
	"\u202egnirts", "\x7f", "\u2066", "\U000e0041"}

// requirePlain proves that nothing but line breaks and plain text is in an output.
func requirePlain(t *testing.T, what, out string) {
	t.Helper()
	for _, r := range out {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			t.Errorf("%s: raw %q in %q", what, r, out)
			return
		}
	}
}

// Nothing that stands in a file, or in its name, reaches the terminal raw.
func TestNoTerminalEscapes(t *testing.T) {
	t.Chdir(t.TempDir())
	for i, escape := range escapes {
		table := statisticsFile(t, "s.arrow", 1)
		table.Metadata["agflow."+escape] = escape + "\nforged: line"
		table.Model.Name = escape
		table.Layers[0].Name = escape
		rec := tables.StatisticsToRecord(memory.DefaultAllocator, table)
		name := strings.ReplaceAll(escape, "\x00", "") + ".arrow"
		write(t, name, rec)
		for _, arguments := range [][]string{
			{"inspect", name}, {"verify", name}, {"score", "--statistics", name},
			{"inspect", "--json", name}, {"plan", "--statistics", name, "--macs", "0.5"},
			{"score", "--statistics", name, "--criterion", escape}, {"inspect", escape},
			{"verify", escape}, {"decide", "--router", name, "--light", name}, {escape},
		} {
			out, said, _ := agflow(arguments...)
			requirePlain(t, strings.Join(arguments, " "), out+said)
			if strings.Contains(out, "\nforged") && arguments[0] == "inspect" {
				t.Errorf("%q forged a line of %q", escape, out)
			}
		}
		var infos []ipcfile.Info
		out, _, _ := agflow("inspect", "--json", name)
		if err := json.Unmarshal([]byte(out), &infos); err != nil ||
			infos[0].Metadata["agflow."+escape] != escape+"\nforged: line" {
			t.Errorf("%d: the JSON lost %q: %v, %v", i, escape, infos, err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// A column may have any name.
func TestNoTerminalEscapesInColumns(t *testing.T) {
	t.Chdir(t.TempDir())
	rec := tables.StatisticsToRecord(memory.DefaultAllocator, statisticsFile(t, "s.arrow", 1))
	fields := append(rec.Schema().Fields(), arrow.Field{Name: escapes[0],
		Type: arrow.PrimitiveTypes.Float64})
	metadata := rec.Schema().Metadata()
	columns := append(rec.Columns(), rec.Column(rec.Schema().FieldIndices("sum_yg")[0]))
	write(t, "c.arrow", array.NewRecord(arrow.NewSchema(fields, &metadata), columns,
		rec.NumRows()))
	out := must(t, "inspect", "c.arrow")
	requirePlain(t, "inspect", out)
	contains(t, out, `\u001b[31mred`)
}
