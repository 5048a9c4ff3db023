package kernel

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The assembly and its Go declarations in the tree are what the generator in asm writes.
func TestAssemblyIsUpToDate(t *testing.T) {
	generator := func(args ...string) ([]byte, error) {
		command := exec.Command("go", args...)
		command.Dir = "asm"
		command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOOS=", "GOARCH=")
		return command.CombinedOutput()
	}
	if output, err := generator("mod", "download"); err != nil {
		t.Skipf("skipped: the generator's modules cannot be fetched: %v\n%s", err, output)
	}
	// That the test reads the generator tells Go's cache of test results to run it again after a change.
	sources, err := filepath.Glob("asm/*")
	requireNoError(t, err)
	for _, source := range sources {
		body(t, source)
	}
	folder := t.TempDir()
	assembly, stubs := filepath.Join(folder, "kernel_amd64.s"), filepath.Join(folder, "stubs_amd64.go")
	if output, err := generator("run", ".", "-out", assembly, "-stubs", stubs, "-pkg", "kernel"); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, fresh := range []string{assembly, stubs} {
		name := filepath.Base(fresh)
		if !bytes.Equal(body(t, fresh), body(t, name)) {
			t.Errorf("%s differs from what the generator writes; run the command at the top of asm/main.go", name)
		}
	}
}

// body is a file without its first line, which has the generator's arguments.
func body(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	requireNoError(t, err)
	_, rest, _ := bytes.Cut(content, []byte("\n"))
	return rest
}
