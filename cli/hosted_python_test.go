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
import ctypes, json, os, subprocess, sys, time

host = ctypes.CDLL(None)
host.agflow_abi_version.restype = ctypes.c_int64

class ShapeError(ValueError):
    code = "shape"

def run(options):
    print("printed by Python", flush=False)
    return json.dumps({"summary": "done", "options": json.loads(options),
                       "core": host.agflow_abi_version(),
                       "native": "agflow._core._native" in sys.modules,
                       "preloaded": "libpython" in os.environ.get("LD_PRELOAD", "")})

def ready():
    print("ready", file=sys.stderr, flush=True)

def sleep():
    ready()
    time.sleep(60)

def swallow():
    ready()
    for _ in range(2):
        try:
            time.sleep(60)
        except BaseException:
            pass

def swallow_and_answer():
    try:
        sleep()
    except BaseException:
        return

def other_exception():
    try:
        sleep()
    except BaseException:
        raise ImportError("initialization failed")

def compute():
    ready()
    sum(range(10**11))

def imports():
    import sleeping

def children():
    if os.fork() == 0:
        subprocess.run(["sleep", "60"])
    subprocess.run(["sh", "-c", "echo ready >&2; exec sleep 60"], start_new_session=True)

def calibrate(options):
    globals()[json.loads(options)["label"]]()
    return json.dumps({"summary": "done"})

def evaluate(options):
    raise ShapeError("y has 3 rows, expected 4: pass both of one batch")

def design(options):
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
	folder := fill(t, map[string]string{"agflow/__init__.py": "", "agflow/commands.py": stub,
		"sleeping.py": "from agflow.commands import swallow; swallow()"})
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
		Options           map[string]any
		Core              int64
		Native, Preloaded bool
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
	if answer.Preloaded {
		t.Error("what Python starts would load libpython")
	}
}

func TestHostedProcessFails(t *testing.T) {
	for _, test := range []struct {
		arguments string
		status    int
		says      string
		traceback bool
	}{
		{"evaluate", exitBadData,
			"agflow: y has 3 rows, expected 4: pass both of one batch\n", false},
		{"design --debug --output o", exitPython, "in inner", true},
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

// One signal ends a hosted command with its status, whatever Python code makes of the interrupt,
// and the processes that it started: they hold the other end of stderr.
func TestSignalEndsHostedProcess(t *testing.T) {
	for _, doing := range []string{"sleep", "swallow", "swallow_and_answer", "other_exception",
		"compute", "imports", "children"} {
		for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(doing+" "+number.String(), func(t *testing.T) {
				t.Parallel()
				signalled(t, hosting(t, "calibrate", "--label", doing), number)
			})
		}
	}
}

func TestTwoSignalsEndHostedProcess(t *testing.T) {
	for _, doing := range []string{"sleep", "swallow", "compute"} {
		t.Run(doing, func(t *testing.T) {
			t.Parallel()
			signalled(t, hosting(t, "calibrate", "--label", doing), syscall.SIGINT, syscall.SIGINT)
		})
	}
}

// signalled waits until a command is ready, sends it the signals, and expects its status, one
// sentence and the end of all that holds its stderr.
func signalled(t *testing.T, c *exec.Cmd, numbers ...syscall.Signal) {
	t.Helper()
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	guard := time.AfterFunc(30*time.Second, func() { _ = c.Process.Kill() })
	defer guard.Stop()
	lines := bufio.NewReader(stderr)
	if ready, err := lines.ReadString('\n'); err != nil {
		t.Fatal(ready, err)
	}
	begin := time.Now()
	for _, number := range numbers {
		_ = c.Process.Signal(number)
		time.Sleep(50 * time.Millisecond)
	}
	rest, _ := io.ReadAll(lines)
	_ = c.Wait()
	took, status := time.Since(begin), c.ProcessState.ExitCode()
	sentence := "agflow: " + interrupted(numbers[0]).Error() + "\n"
	if status != pyhost.Status(numbers[0]) || took > 2*time.Second || string(rest) != sentence {
		t.Errorf("status %d after %v: %s", status, took, rest)
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
