package kernel

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The assembly and its Go declarations in the tree equal the output of the generator in asm.
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
	// Go's cache of test results repeats a test when a file that it has read is changed.
	sources, err := filepath.Glob("asm/*")
	requireNoError(t, err)
	for _, source := range sources {
		contentOf(t, source)
	}
	folder := t.TempDir()
	assembly := filepath.Join(folder, "kernel_amd64.s")
	stubs := filepath.Join(folder, "stubs_amd64.go")
	output, err := generator("run", ".", "-out", assembly, "-stubs", stubs, "-pkg", "kernel")
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, fresh := range []string{assembly, stubs} {
		name := filepath.Base(fresh)
		if !bytes.Equal(contentOf(t, fresh), contentOf(t, name)) {
			t.Errorf(
				"%s differs from what the generator writes; "+
					"run the command at the top of asm/main.go",
				name)
		}
	}
}

func contentOf(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	requireNoError(t, err)
	return content
}
