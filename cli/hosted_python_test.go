//go:build python

package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"agflow/bridge/abi"
	"agflow/bridge/pyhost"
)

// stub takes the place of the Python package: these tests are about the process and what crosses
// between the languages, not about models.
const stub = `
import ctypes, json, sys, time

host = ctypes.CDLL(None)
host.agflow_abi_version.restype = ctypes.c_int64

class ShapeError(ValueError):
    code = "shape"

def run(options):
    print("printed by Python", flush=False)
    return json.dumps({"summary": "done", "options": json.loads(options),
                       "core": host.agflow_abi_version(),
                       "native": "agflow._core._native" in sys.modules})

def calibrate(options):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)

def prune(options):
    raise ShapeError("y has 3 rows, expected 4: pass both of one batch")

def predict(options):
    def inner(): return 1 / 0
    return inner()
`

// testPython is a Python of the linked version.
func testPython(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("AGFLOW_TEST_PYTHON"), "python" + pyhost.Version} {
		found, err := exec.LookPath(name)
		if err == nil && pyhost.CheckVersion(found, pyhost.Version) == nil {
			return found
		}
	}
	t.Skipf("no Python %s on the PATH and none in AGFLOW_TEST_PYTHON", pyhost.Version)
	return ""
}

// hosting is a process of a command that finds the stub before the installed package.
func hosting(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	folder := fill(t, map[string]string{"agflow/__init__.py": "", "agflow/commands.py": stub})
	environment := []string{"PYTHONPATH=" + folder, "AGFLOW_PYTHON=" + testPython(t)}
	return program(environment, arguments...)
}

func TestHostedProcessAnswers(t *testing.T) {
	t.Parallel()
	out, complaint, status := finish(t, hosting(t, "run", "--macs", "0.5", "--json"))
	if status != exitOK || !strings.Contains(out, "printed by Python\n") {
		t.Fatal(status, out, complaint)
	}
	var answer struct {
		Options map[string]any
		Core    int64
		Native  bool
	}
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &answer); err != nil {
		t.Fatal(err, out)
	}
	if answer.Options["macs"] != "0.5" || answer.Options["batches"] != 20.0 {
		t.Errorf("options %v", answer.Options)
	}
	if answer.Core != abi.Number || answer.Native {
		t.Errorf("the core of this process: abi %d; extension loaded: %v",
			answer.Core, answer.Native)
	}
}

func TestHostedProcessFails(t *testing.T) {
	for _, test := range []struct {
		arguments string
		status    int
		says      string
		traceback bool
	}{
		{"prune --plan p --output o", exitBadData,
			"agflow: y has 3 rows, expected 4: pass both of one batch\n", false},
		{"predict --debug --light l", exitPython, "in inner", true},
	} {
		t.Run(test.arguments, func(t *testing.T) {
			t.Parallel()
			_, complaint, status := finish(t, hosting(t, strings.Fields(test.arguments)...))
			if status != test.status || !strings.Contains(complaint, test.says) ||
				strings.Contains(complaint, "Traceback") != test.traceback {
				t.Errorf("status %d: %s", status, complaint)
			}
		})
	}
}

func TestSignalEndsHostedProcessWith130(t *testing.T) {
	for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(number.String(), func(t *testing.T) {
			t.Parallel()
			c := hosting(t, "calibrate")
			stderr, err := c.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			guard := time.AfterFunc(30*time.Second, func() { _ = c.Process.Kill() })
			lines := bufio.NewReader(stderr)
			if ready, err := lines.ReadString('\n'); err != nil {
				t.Fatal(ready, err)
			}
			time.Sleep(100 * time.Millisecond)
			begin := time.Now()
			_ = c.Process.Signal(number)
			rest, _ := io.ReadAll(lines)
			_ = c.Wait()
			guard.Stop()
			status, took := c.ProcessState.ExitCode(), time.Since(begin)
			isSlow := took > 5*time.Second
			if status != exitInterrupted || isSlow || string(rest) != "agflow: interrupted\n" {
				t.Errorf("status %d after %v: %s", status, took, rest)
			}
		})
	}
}

// The refusal comes before Python starts, so this process can make it.
func TestEnvironmentOfAnotherVersionIsRefused(t *testing.T) {
	folder := fill(t, map[string]string{
		"pyvenv.cfg": "version = 3.9.1\n", "bin/python3": "#!/bin/sh\n",
	})
	interpreter := filepath.Join(folder, "bin", "python3")
	refuses(t, "--python "+interpreter, map[string]refusal{
		"run": {exitPython, "is an environment of Python 3.9, but this agflow was built for " +
			"Python " + pyhost.Version},
	})
}

func TestDoctorNamesACureForEachFailure(t *testing.T) {
	interpreter := testPython(t)
	missing := &pyhost.Error{Type: "ModuleNotFoundError", Message: "No module named 'agflow'"}
	fakePython(t, "", missing)
	out, _, status := agflow("--python", interpreter, "doctor")
	if status != exitPython {
		t.Errorf("status %d", status)
	}
	contains(t, out, "ok      interpreter  "+interpreter,
		"failed  package      ModuleNotFoundError: No module named 'agflow'",
		"cure: "+interpreter+" -m pip install agflow")
}
