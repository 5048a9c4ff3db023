//go:build python

package pyhost

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Python can be started once a process, so each scenario runs in a process of its own: this test
// binary again, with the scenario's name in the environment.
const scenarioKey = "AGFLOW_TEST_SCENARIO"

// scenarioPython is Python code the scenarios call by "script".
const scenarioPython = `
import multiprocessing, os, sys, threading, time, types
script = types.ModuleType("script")
def echo(text): return text
def number(text): return 5
def fail(text):
    try: {}["missing"]
    except KeyError as error: raise ValueError("bad " + text) from error
def leave(text): sys.exit(3)
def shout(text): print(text, end=""); return ""
def sleep(text):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
def spin(text):
    print("ready", file=sys.stderr, flush=True)
    while True: pass
def wait(text):
    lock = threading.Lock()
    lock.acquire()
    print("ready", file=sys.stderr, flush=True)
    lock.acquire()
def read(text):
    reading, writing = os.pipe()
    print("ready", file=sys.stderr, flush=True)
    os.read(reading, 1)
def abort(text):
    try: sleep(text)
    finally: os.abort()
def child(text):
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    time.sleep(0.2)
    os.kill(process.pid, int(text))
    process.join(10)
    code = process.exitcode
    process.kill()
    return str(code)
class AgflowFault(ValueError):
    code = "shape"
AgflowFault.__module__ = "agflow.errors"
def ours(text): raise AgflowFault("y has 3 rows, expected 4: pass both of one batch")
class Box:
    def __init__(self, text): self.text, self.kept = text, None
    def get(self, text): return self.text + text
    def double(self, numbers, out):
        for i, x in enumerate(numbers.cast("f")): out.cast("f")[i] = 2 * x
    def nothing(self, out): assert len(out) == 0
    def keep(self, numbers, out): self.kept = numbers.cast("f")
    def change(self, numbers, out): numbers[0] = 1
    def thread(self, out): out[0] = threading.current_thread() is threading.main_thread()
    def slow(self, out): time.sleep(0.2)
    def cyclic(self, numbers, out):
        view = numbers.cast("f")
        loop = [view]
        loop.append(loop)
        raise ValueError("bad numbers")
for f in (Box, echo, number, fail, leave, shout, sleep, spin, wait, read, abort, child, ours):
    setattr(script, f.__name__, f)
sys.modules["script"] = script
`

func TestMain(m *testing.M) {
	if scenario := os.Getenv(scenarioKey); scenario != "" {
		support += scenarioPython
		os.Exit(scenarios[scenario]())
	}
	os.Exit(m.Run())
}

var scenarios = map[string]func() int{
	"calls": func() int {
		return hosted(func(p *Interpreter) int {
			var group sync.WaitGroup
			for i := range 16 {
				group.Go(func() {
					want := fmt.Sprintf("%d é \U0001F600", i)
					if got, err := p.Call("script", "echo", want); got != want || err != nil {
						fmt.Println("echo gave", got, err)
					}
				})
			}
			group.Wait()
			answer, _ := p.Call("script", "echo", "all answered")
			fmt.Println(answer)
			return 0
		})
	},
	"errors": func() int {
		return hosted(func(p *Interpreter) int {
			for _, function := range []string{"fail", "leave", "ours", "number", "absent"} {
				_, err := p.Call("script", function, "input")
				fmt.Printf("%s: %v\n", function, err)
				var python *Error
				if errors.As(err, &python) {
					fmt.Printf("%s code %q\n%s", function, python.Code, python.Traceback)
				}
			}
			return 0
		})
	},
	"objects": func() int { return hosted(useObjects) },
	"output": func() int { // Python buffers a pipe's text until it is closed
		return hosted(func(p *Interpreter) int {
			_, err := p.Call("script", "shout", strings.Repeat("x", 100_000))
			return status(err)
		})
	},
	"sleep": func() int { return interrupted("sleep") },
	"spin":  func() int { return interrupted("spin") },
	"wait":  func() int { return interrupted("wait") },
	"read":  func() int { return interrupted("read") },
	"abort": func() int { return interrupted("abort") },
	"child": func() int {
		return hosted(func(p *Interpreter) int {
			for _, number := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
				answer, err := p.Call("script", "child", fmt.Sprint(int(number)))
				fmt.Println(number, answer, err)
			}
			return 0
		})
	},
	"environment": func() int {
		return hosted(func(p *Interpreter) int {
			for _, question := range []string{"__import__('sys').prefix",
				"__import__('sys').executable", "__import__('sys').flags.utf8_mode"} {
				answer, err := p.Call("builtins", "eval", "str("+question+")")
				fmt.Println(answer, err)
			}
			return 0
		})
	},
}

// useObjects prints what goes wrong with objects, memory and threads of Python, then "done".
func useObjects(p *Interpreter) int {
	box, err := p.New(p.NewThread(), "script", "Box", "a box")
	if err != nil {
		return status(err)
	}
	if text, err := box.Call("get", "!"); text != "a box!" || err != nil {
		fmt.Println("get gave", text, err)
	}
	other := p.NewThread()
	numbers, doubled := []float32{1, -0.5, 3e9}, make([]float32, 3)
	for _, thread := range []Thread{p, other} {
		clear(doubled)
		err := box.Fill(thread, "double", Bytes(doubled), Bytes(numbers))
		if err != nil || doubled[0] != 2 || doubled[1] != -1 || doubled[2] != 6e9 {
			fmt.Println("double gave", doubled, err)
		}
		flag := []byte{7}
		err = box.Fill(thread, "thread", flag)
		if (flag[0] == 1) != (thread == Thread(p)) || err != nil {
			fmt.Println("thread gave", flag, err)
		}
		if err := box.Fill(thread, "nothing", nil); err != nil {
			fmt.Println(err)
		}
		for _, method := range []string{"cyclic", "keep", "change", "absent"} {
			fmt.Println(method+":", box.Fill(thread, method, nil, Bytes(numbers)))
		}
	}
	begin := time.Now() // threads run side by side while one waits without Python's lock
	var group sync.WaitGroup
	for _, thread := range []Thread{p, other, p.NewThread()} {
		group.Go(func() { _ = box.Fill(thread, "slow", nil) })
	}
	group.Wait()
	if took := time.Since(begin); took > 500*time.Millisecond {
		fmt.Println("three threads took", took)
	}
	runtime.GC() // what Python keeps stays pinned, without a complaint of Go's runtime
	if err := box.Drop(); err != nil {
		fmt.Println(err)
	}
	_, err = box.Call("get", "")
	fmt.Println(err)
	_, err = p.New(p, "script", "fail", "luck")
	fmt.Println(err)
	return 0
}

func hosted(use func(*Interpreter) int) int {
	program, err := Find("")
	if err != nil {
		return status(err)
	}
	p, err := Start(program)
	if err != nil {
		return status(err)
	}
	answer := use(p)
	if err := p.Close(); err != nil {
		return status(err)
	}
	return answer
}

func interrupted(function string) int {
	return hosted(func(p *Interpreter) int {
		arrived := make(chan os.Signal, 1)
		signal.Notify(arrived, os.Interrupt, syscall.SIGTERM)
		var number syscall.Signal
		go func() {
			number = (<-arrived).(syscall.Signal)
			p.Interrupt(number)
		}()
		_, err := p.Call("script", function, "")
		var python *Error
		if errors.As(err, &python) && python.IsInterrupt() {
			return Status(number)
		}
		return status(err)
	})
}

func status(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// environment makes a virtual environment of the linked Python version, without pip, and returns
// its python3.
func environment(t *testing.T) string {
	t.Helper()
	base, err := exec.LookPath(os.Getenv("AGFLOW_TEST_PYTHON"))
	if err != nil {
		base, err = exec.LookPath("python" + Version)
	}
	if err != nil {
		t.Skipf("no python%s on the PATH and none in AGFLOW_TEST_PYTHON: %v", Version, err)
	}
	folder := filepath.Join(t.TempDir(), "environment é")
	if out, err := exec.Command(base, "-m", "venv", "--without-pip",
		folder).CombinedOutput(); err != nil {
		t.Fatalf("venv: %v\n%s", err, out)
	}
	return filepath.Join(folder, "bin", "python3")
}

func scenario(t *testing.T, name, program string) *exec.Cmd {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), scenarioKey+"="+name,
		"VIRTUAL_ENV="+filepath.Dir(filepath.Dir(program)), "LC_ALL=C")
	return command
}

func run(t *testing.T, name, program string) string {
	t.Helper()
	command := scenario(t, name, program)
	guard := time.AfterFunc(30*time.Second, func() { _ = command.Process.Kill() })
	defer guard.Stop()
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestCallsFromManyGoroutines(t *testing.T) {
	if got := run(t, "calls", environment(t)); got != "all answered\n" {
		t.Error(got)
	}
}

func TestObjectsAndMemory(t *testing.T) {
	each := "cyclic: ValueError: bad numbers\n" +
		"keep: BufferError: keep keeps memory that was lent to it\n" +
		"change: TypeError: cannot modify read-only memory\n" +
		"absent: AttributeError: 'Box' object has no attribute 'absent'\n"
	want := each + each + "KeyError: '1'\nValueError: bad luck\n"
	if got := run(t, "objects", environment(t)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestExceptionsBecomeErrors(t *testing.T) {
	got := run(t, "errors", environment(t))
	for _, want := range []string{
		// the whole chain
		"fail: ValueError: bad input\n", "KeyError: 'missing'",
		"The above exception was the direct cause",
		"leave: SystemExit: 3\n",
		"ours: y has 3 rows, expected 4: pass both of one batch\nours code \"shape\"\n",
		"number: script.number did not return text",
		"absent: AttributeError: module 'script' has no attribute 'absent'",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}

func TestPipedOutputIsNotLost(t *testing.T) {
	if got := run(t, "output", environment(t)); len(got) != 100_000 {
		t.Errorf("%d of 100000 bytes arrived", len(got))
	}
}

func TestEnvironmentIsTheInterpreters(t *testing.T) {
	program := environment(t)
	want := filepath.Dir(filepath.Dir(program)) + " <nil>\n" + program + " <nil>\n1 <nil>\n"
	if got := run(t, "environment", program); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// As in a plain Python process: SIGTERM ends the child, SIGINT raises KeyboardInterrupt in it (exit
// status 1).
func TestForkedChildAnswersSignals(t *testing.T) {
	got := run(t, "child", environment(t))
	for _, want := range []string{"terminated -15 <nil>\n", "interrupt 1 <nil>\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}

// A signal ends Python code that computes, and Python code that sleeps or waits in a system call,
// even one that would go on after other signals; and code that aborts, without a dump.
func TestSignalInterrupts(t *testing.T) {
	program := environment(t)
	for _, name := range []string{"sleep", "spin", "wait", "read", "abort"} {
		for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(name+" "+number.String(), func(t *testing.T) {
				took, code := signalled(t, scenario(t, name, program), number)
				if code != Status(number) || took > 2*time.Second {
					t.Errorf("status %d after %v", code, took)
				}
			})
		}
	}
}

// signalled starts a command, waits for its "ready", sends the signal and returns how long it then
// took to end.
func signalled(t *testing.T, command *exec.Cmd, number syscall.Signal) (time.Duration, int) {
	t.Helper()
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	guard := time.AfterFunc(30*time.Second, func() { _ = command.Process.Kill() })
	defer guard.Stop()
	if _, err := io.ReadFull(stderr, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	begin := time.Now()
	_ = command.Process.Signal(number)
	_ = command.Wait()
	return time.Since(begin), command.ProcessState.ExitCode()
}
