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

// stub stands in for the Python package: the tests are about what crosses, not about models.
const stub = `
import ctypes, json, sys, time

class ShapeError(ValueError):
    code = "shape"

def run(options):
    print("printed by Python", flush=False)
    return json.dumps({"summary": "done", "options": json.loads(options), "core": ctypes.CDLL(None).agflow_abi_version(),
                       "native": "agflow._core._native" in sys.modules})

def finetune(options):
    return run(options)

def design(options):
    return run(options)

def bench_core(options):
    return json.dumps({"summary": "done", "options": json.loads(options)})

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
		if found, err := exec.LookPath(name); err == nil && pyhost.CheckVersion(found, pyhost.Version) == nil {
			return found
		}
	}
	t.Skipf("no Python %s on the PATH and none in AGFLOW_TEST_PYTHON", pyhost.Version)
	return ""
}

// hosting is a command that finds the stub in front of everything that is installed.
func hosting(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	folder := t.TempDir()
	for name, content := range map[string]string{"__init__.py": "", "commands.py": stub} {
		path := filepath.Join(folder, "agflow", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return program([]string{"PYTHONPATH=" + folder, "AGFLOW_PYTHON=" + testPython(t)}, arguments...)
}

// finish runs a command and returns what it said and its status.
func finish(t *testing.T, c *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, complaint strings.Builder
	c.Stdout, c.Stderr = &out, &complaint
	guard := time.AfterFunc(time.Minute, func() {
		if c.Process != nil {
			_ = c.Process.Kill()
		}
	})
	defer guard.Stop()
	_ = c.Run()
	return out.String(), complaint.String(), c.ProcessState.ExitCode()
}

func TestHostedCommandPassesFlagsAndPrintsBoth(t *testing.T) {
	out, complaint, status := finish(t, hosting(t, "run", "--macs", "0.5", "--groups", "mlp", "--limit", "7", "--epochs", "0", "--ignored-layers", "blocks.0.*,head"))
	if status != exitOK || !strings.Contains(out, "done\n") || !strings.Contains(out, "printed by Python\n") {
		t.Fatal(status, out, complaint)
	}
	out, _, _ = finish(t, hosting(t, "run", "--macs", "0.5", "--groups", "mlp", "--limit", "7", "--epochs", "0", "--ignored-layers", "blocks.0.*,head", "--json"))
	var answer struct {
		Options map[string]any
		Core    int
		Native  bool
	}
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &answer); err != nil {
		t.Fatal(err, out)
	}
	want := `{"batch_size":32,"batches":20,"compensate":"ridge_at_once","confidence":0.95,"criterion":"agf","data":"example:train","epochs":0,` +
		`"eval":"example:test","eval_limit":null,"groups":["mlp"],"ignored_layers":["blocks.0.*","head"],"label":null,"limit":7,"lr":0.001,"macs":"0.5",` +
		`"model":"example","output":"agflow-run","pruning_ratio":null,"round_to":8,"seed":0,"tolerance":0.005,"weights":null}`
	if got, _ := json.Marshal(answer.Options); string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if answer.Core != abi.Number || answer.Native {
		t.Errorf("the core of this process: abi %d; extension loaded: %v", answer.Core, answer.Native)
	}
}

// Every flag reaches Python, those that were not given with their defaults.
func TestFinetuneLeavesNothingOut(t *testing.T) {
	out, complaint, status := finish(t, hosting(t, "finetune", "--light", "cut", "--output", "tuned", "--features", "0.5", "--checkpoint", "run.safetensors", "--json"))
	var answer struct{ Options map[string]any }
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &answer); err != nil {
		t.Fatal(status, err, out, complaint)
	}
	want := `{"accumulate":1,"batch_size":32,"checkpoint":"run.safetensors","data":"example:train","distill":0.9,"epochs":3,"features":0.5,` +
		`"heavy":"example","label":null,"light":"cut","limit":null,"lr":0.0003,"output":"tuned","seed":0,"weights":null}`
	if got, _ := json.Marshal(answer.Options); string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDesignLeavesNothingOut(t *testing.T) {
	out, complaint, status := finish(t, hosting(t, "design", "--output", "cascade", "--classes", "0,217", "--macs", "1,0.25", "--shared-blocks", "0,4", "--json"))
	var answer struct{ Options map[string]any }
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &answer); err != nil {
		t.Fatal(status, err, out, complaint)
	}
	want := `{"answers":"heavy","batch_size":32,"classes":[0,217],"confidence":0.95,"cost":"macs","data":"example:train","epochs":8,"groups":["mlp","heads"],"held_out":null,` +
		`"image_sizes":[],"label":null,"limit":null,"lr":0.0001,"macs":["1","0.25"],"model":"example","output":"cascade","seed":0,"shared_blocks":[0,4],` +
		`"tolerance":0.005,"weights":null}`
	if got, _ := json.Marshal(answer.Options); string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Switches and lists of numbers reach Python as JSON has them; the command's own switches don't.
func TestSwitchesAndNumbersReachPython(t *testing.T) {
	out, complaint, status := finish(t, hosting(t, "bench", "core", "--threads", "1,4", "--json"))
	if status != exitOK || !strings.Contains(out, `"options": {`) || !strings.Contains(out, `"rounds": 9`) || strings.Contains(out, `"json"`) {
		t.Fatal(status, out, complaint)
	}
	var answer struct{ Options struct{ Threads []int } }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer.Options.Threads) != 2 || answer.Options.Threads[1] != 4 {
		t.Error(err, out)
	}
}

func TestExceptionsOfPython(t *testing.T) {
	for _, test := range []struct {
		arguments string
		status    int
		says      string
		traceback bool
	}{
		{"prune --plan p --output o", exitBadData, "agflow: y has 3 rows, expected 4: pass both of one batch\n", false},
		{"predict --light l", exitPython, "agflow: ZeroDivisionError: division by zero (--debug shows where", false},
		{"--debug predict --light l", exitPython, "in inner", true},
		{"predict --debug --light l", exitPython, "in inner", true},
	} {
		_, complaint, status := finish(t, hosting(t, strings.Fields(test.arguments)...))
		if status != test.status || !strings.Contains(complaint, test.says) || strings.Contains(complaint, "Traceback") != test.traceback {
			t.Errorf("%s: status %d: %s", test.arguments, status, complaint)
		}
	}
}

func TestSignalEndsHostedCommandWith130(t *testing.T) {
	for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
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
		said, _ := io.ReadAll(lines)
		_ = c.Wait()
		guard.Stop()
		if c.ProcessState.ExitCode() != exitInterrupted || time.Since(begin) > 5*time.Second || string(said) != "agflow: interrupted\n" {
			t.Errorf("%v: status %d after %v: %s", number, c.ProcessState.ExitCode(), time.Since(begin), said)
		}
	}
}

func TestEnvironmentOfAnotherVersionIsRefused(t *testing.T) {
	folder := t.TempDir()
	for name, content := range map[string]string{"pyvenv.cfg": "version = 3.9.1\n", "bin/python3": "#!/bin/sh\n"} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	_, complaint, status := finish(t, hosting(t, "--python", filepath.Join(folder, "bin", "python3"), "run"))
	want := "is an environment of Python 3.9, but this agflow was built for Python " + pyhost.Version
	if status != exitPython || !strings.Contains(complaint, want) || strings.Count(complaint, "\n") != 1 {
		t.Error(status, complaint)
	}
}

func TestDoctorNamesACureForEachFailure(t *testing.T) {
	out, _, status := finish(t, hosting(t, "doctor")) // the stub has no agflow._doctor
	if status != exitPython || !strings.Contains(out, "ok      interpreter") || !strings.Contains(out, "failed  package") || !strings.Contains(out, "-m pip install agflow") {
		t.Error(status, out)
	}
}
