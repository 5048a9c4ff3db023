package ipcfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFilesOfOtherFormsAreSaidToBeThese(t *testing.T) {
	for _, form := range otherForms {
		path := filepath.Join(t.TempDir(), "table")
		content := []byte(form.begins + strings.Repeat("x", 100))
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Inspect(path)
		if err == nil || !strings.Contains(err.Error(), "table is "+form.is) ||
			strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", form.is, err)
		}
	}
}
