package ipcfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTemporariesOfAnEndingProcessAreRemoved(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "table.arrow")
	if err := WriteBytes(path, []byte("older")); err != nil {
		t.Fatal(err)
	}
	err := replace(path, func(f *os.File) error {
		RemoveTemporaries()
		return nil
	})
	content, reading := os.ReadFile(path)
	if err == nil || reading != nil || string(content) != "older" {
		t.Error(err, reading, string(content))
	}
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	hidden, _ := filepath.Glob(filepath.Join(folder, ".*"))
	if err != nil || len(names) != 1 || len(hidden) != 0 {
		t.Error(names, hidden)
	}
}

// A writer that panics, as one does whose work is cancelled, leaves nothing.
func TestAWriterThatPanicsLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	err := replace(filepath.Join(folder, "new"), func(*os.File) error { panic("defect") })
	found, reading := os.ReadDir(folder)
	if err == nil || reading != nil || len(found) != 0 {
		t.Error(err, reading, found)
	}
}
