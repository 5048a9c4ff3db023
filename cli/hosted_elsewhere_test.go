//go:build linux && !python

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"agflow/bridge/pyhost"
)

// answering is a Python that describes itself so.
func answering(t *testing.T, script string) (python string) {
	t.Helper()
	return filepath.Join(fill(t, map[string]string{"bin/python3": "#!/bin/sh\n" + script}),
		"bin", "python3")
}

// describing is a Python whose agflow has this host.
func describing(t *testing.T, libpython, host string) (python string) {
	t.Helper()
	return answering(t, `echo '{"version": "3.11", "executable": "'${BEHIND_SHIM:-$0}'", `+
		`"libpython": "`+libpython+`", "host": "`+host+`"}'`)
}

// The host is a script here, which shows what it was given. That it sets the status of the process
// itself proves that it took its place.
func TestModelStepsGoToTheHostOfThePython(t *testing.T) {
	folder := fill(t, map[string]string{
		"host": "#!/bin/sh\necho \"$AGFLOW_PYTHON $LD_PRELOAD $*\"\nexit 7\n",
	})
	for name, test := range map[string]struct {
		preloaded, want string
	}{
		"alone":                {"", "/lib/libpython3.11.so.1.0"},
		"beside what is there": {"/lib/jemalloc.so", "/lib/libpython3.11.so.1.0:/lib/jemalloc.so"},
	} {
		t.Run(name, func(t *testing.T) {
			python := describing(t, "/lib/libpython3.11.so.1.0", filepath.Join(folder, "host"))
			c := program([]string{"AGFLOW_PYTHON=" + python, "LD_PRELOAD=" + test.preloaded,
				"BEHIND_SHIM=/env/bin/python3"}, "evaluate", "--model", "example")
			out, complaint, status := finish(t, c)
			want := "/env/bin/python3 " + test.want + " evaluate --model example\n"
			if status != 7 || out != want {
				t.Errorf("status %d, printed %q (%s), want %q", status, out, complaint, want)
			}
		})
	}
}

func TestPythonIsAskedWithoutAHomeOfAnother(t *testing.T) {
	t.Setenv("PYTHONHOME", "/another")
	python := answering(t, `echo "home is '$PYTHONHOME'" >&2; exit 1`)
	refuses(t, "--python "+python, map[string]refusal{"evaluate": {exitPython, "(home is '')"}})
}

func TestSignalEndsTheCommandWhilePythonDescribesItself(t *testing.T) {
	for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(number.String(), func(t *testing.T) {
			t.Parallel()
			python := answering(t, "echo $$ > $0.started; exec sleep 60")
			c := program([]string{"AGFLOW_PYTHON=" + python}, "evaluate")
			time.AfterFunc(0, func() {
				for c.Process == nil || !exists(python+".started") {
					time.Sleep(time.Millisecond)
				}
				_ = c.Process.Signal(number)
			})
			out, complaint, status := finish(t, c)
			want := "agflow: " + interrupted(number).Error() + "\n"
			if status != pyhost.Status(number) || complaint != want {
				t.Errorf("status %d: %s%s", status, out, complaint)
			}
		})
	}
}

// The host is this program again, so it becomes itself for ever, and a signal at any moment comes
// while it does.
func TestNoSignalIsLostOnTheWayToTheHost(t *testing.T) {
	python := describing(t, "/lib/libpython3.11.so.1.0", os.Args[0])
	for trial := range 20 {
		c := program([]string{"AGFLOW_PYTHON=" + python}, "evaluate")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+trial*3) * time.Millisecond)
		begin := time.Now()
		_ = c.Process.Signal(syscall.SIGTERM)
		guard := time.AfterFunc(10*time.Second, func() { _ = c.Process.Kill() })
		_ = c.Wait()
		guard.Stop()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("trial %d: %v after %v", trial, c.ProcessState, took)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestFlagsAreRefusedBeforeAnyPythonStarts(t *testing.T) {
	python := answering(t, "echo started >&2; exit 1\n")
	refuses(t, "--python "+python, map[string]refusal{
		"evaluate --modle m": {exitUsage, "did you mean --model"},
		"predict":            {exitUsage, "--light is missing"},
	})
}

// without is a Python that has no agflow.
func without(t *testing.T) (python string) {
	t.Helper()
	return answering(t, `echo "ModuleNotFoundError: No module named 'agflow'" >&2; exit 1`)
}

func TestPythonsThatCannotBeHostedNameTheCure(t *testing.T) {
	here := filepath.Join(fill(t, map[string]string{"host": "#!/bin/sh\n"}), "host")
	const libpython = "/lib/libpython3.11.so.1.0"
	for python, says := range map[string]string{
		"/nowhere/python3":                       "no Python interpreter at /nowhere/python3",
		without(t):                               "has no agflow that works (ModuleNotFoundError:",
		answering(t, "kill -9 $$"):               "has no agflow that works (signal: killed)",
		answering(t, "echo hello"):               `did not describe itself ("hello")`,
		describing(t, "", here):                  "has no shared libpython3.11.so.1.0",
		describing(t, "/my lib/libpython", here): "has a blank or a colon",
		describing(t, libpython, "/gone"):        "the program /gone is missing",
	} {
		refuses(t, "--python "+python, map[string]refusal{"evaluate": {exitPython, says}})
	}
}

func TestDoctorOfTheFileStepsNamesACure(t *testing.T) {
	python := without(t)
	out, _, status := agflow("--python", python, "doctor")
	if status != exitPython || strings.Count(out, "-m pip install agflow") != 1 {
		t.Error(status, out)
	}
	contains(t, out, "ok      interpreter  "+python,
		"failed  package      "+python+" has no agflow")
}
