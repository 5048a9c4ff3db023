package main

import (
	"agflow/bridge/tables"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

func TestInspectShortensLongMetadata(t *testing.T) {
	t.Chdir(t.TempDir())
	table := statisticsFile(t, "s.arrow", 1)
	table.Metadata["agflow.note"] = strings.Repeat("é", 500)
	write(t, "long.arrow", tables.StatisticsToRecord(memory.DefaultAllocator, table))
	contains(t, must(t, "inspect", "long.arrow"), strings.Repeat("é", 100)+"… (1000 bytes)")
}
