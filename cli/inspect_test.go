package main

import (
	"agflow/bridge/tables"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// A model is described by Python; files are not.
func TestInspectAModel(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	last := fakePython(t, `{"summary": "two groups", "groups": []}`, nil)
	out := must(t, "inspect", "--model", "timm:resnet18", "--image-size", "64")
	if out != "two groups\n" || last.function != "agflow.commands.inspect_model" ||
		last.options != `{"image_size":64,"model":"timm:resnet18"}` {
		t.Errorf("%q, %+v", out, last)
	}
	contains(t, must(t, "inspect", "--model", "example", "--json"), `"groups": []`)
	for arguments, says := range map[string]string{
		"--model example s.arrow":       `"s.arrow" was given, too`,
		"--image-size 64 s.arrow":       "without --model",
		"--model exmaple":               "did you mean example?",
		"--model timm:a --image-size 0": "at least 1",
	} {
		_, complaint, status := agflow(append([]string{"inspect"}, strings.Fields(arguments)...)...)
		if status != exitUsage {
			t.Errorf("%s: status %d", arguments, status)
		}
		contains(t, complaint, says)
	}
}

func TestInspectShortensLongMetadata(t *testing.T) {
	t.Chdir(t.TempDir())
	table := statisticsFile(t, "s.arrow", 1)
	table.Metadata["agflow.note"] = strings.Repeat("é", 500)
	write(t, "long.arrow", tables.StatisticsToRecord(memory.DefaultAllocator, table))
	contains(t, must(t, "inspect", "long.arrow"), strings.Repeat("é", 100)+"… (1000 bytes)")
}
