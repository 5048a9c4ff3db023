//go:build python

package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"agflow/core/routing"
)

// servedStub takes the place of agflow.serving: two linear experts of 3 pixels and 4 classes.
const servedStub = `
import json, os, sys, time

class InvalidValueError(ValueError):
    code = "value"
InvalidValueError.__module__ = "agflow.errors"

def open_cascade(options):
    options = json.loads(options)
    config_path = os.path.join(options["folder"], "cascade.json")
    with open(config_path) as file:
        return Served(json.load(file), config_path)

class Served:
    def __init__(self, config, config_path):
        if config.get("sleep"):
            print("ready", file=sys.stderr, flush=True)
            time.sleep(config["sleep"])
        self.gain, self.pass_seconds = config["gain"], config.get("pass_seconds", 0)
        with open(os.path.join(os.path.dirname(config_path), "router.json")) as file:
            self.router = json.load(file)
        self.router.pop("checksum")

    def describe(self, _):
        return json.dumps({"name": "stub", "revision": str(self.gain), "runtime": "stub",
            "runtime_version": "1", "channels": 1, "height": 1, "width": 3, "classes": 4,
            "class_names": None, "max_batch": None, "router": self.router, "light_cost": 1.0,
            "heavy_cost": 4.0, "shared_cost": 0.0, "cost_unit": "MACs"})

    def prepare(self, encoded, out):
        pixels = bytes(encoded)
        if len(pixels) != 3:
            raise InvalidValueError(f"the image has {len(pixels)} bytes, expected 3")
        view = out.cast("f")
        for i, value in enumerate(pixels):
            view[i] = value / 100

    def light(self, images, out):
        time.sleep(self.pass_seconds)
        self.logits(images, out, 1)

    def heavy(self, images, rows, out):
        assert len(rows) // 4 == len(images) // 12
        self.logits(images, out, -1)

    def logits(self, images, out, sign):
        x, y = images.cast("f"), out.cast("f")
        for i in range(len(x) // 3):
            for c in range(4):
                y[4 * i + c] = sign * self.gain * x[3 * i + c % 3] * (c + 1)

    def close(self, _):
        return ""
`

// serverProcess is a server as a process of its own.
type serverProcess struct {
	t       *testing.T
	command *exec.Cmd
	folder  string
	url     string
	out     *bufio.Reader
	log     *lockedBuffer
}

// lockedBuffer takes the log of a process that still runs.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

// stubRouter is a router.json by which images of a confidence below about 0.6 escalate.
func stubRouter(t *testing.T) string {
	t.Helper()
	const n = 1000
	s := routing.Samples{
		Labels: make([]int64, n), Heavy: make([]int64, n),
		Priors:       []routing.Prior{{Name: routing.MaxProbability, Values: make([]float32, n)}},
		Cost:         routing.Cost{Light: 1, Heavy: 4, Unit: routing.MACs},
		LightCorrect: routing.BitsOf(n, func(i int) bool { return i%3 > 0 }),
		HeavyCorrect: routing.BitsOf(n, func(int) bool { return true }),
	}
	for i := range n {
		s.Labels[i], s.Heavy[i] = int64(i%4), int64(i%4)
		s.Priors[0].Values[i] = float32(i) / n
	}
	escalation := 0.6
	router, err := routing.NewRouter(s, routing.Request{Escalation: &escalation, Confidence: 0.95})
	if err != nil {
		t.Fatal(err)
	}
	content, err := router.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func startServing(t *testing.T, config string, arguments ...string) *serverProcess {
	t.Helper()
	folder := fill(t, map[string]string{"cascade.json": config, "router.json": stubRouter(t)})
	s := &serverProcess{t: t, folder: folder, log: &lockedBuffer{}}
	package_ := fill(t,
		map[string]string{"agflow/__init__.py": "", "agflow/serving.py": servedStub})
	s.start(program(
		[]string{"PYTHONPATH=" + package_, "AGFLOW_PYTHON=" + testPython(t)},
		append([]string{"serve", "--cascade", s.folder, "--port", "0"}, arguments...)...))
	return s
}

func (s *serverProcess) start(command *exec.Cmd) {
	s.t.Helper()
	stdout, err := command.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.command, command.Stderr, s.out = command, s.log, bufio.NewReader(stdout)
	if err := command.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = command.Process.Kill() })
}

// ready waits for the line that says where the server listens.
func (s *serverProcess) ready() *serverProcess {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	found := regexp.MustCompile(`https?://[0-9.:]+`).FindString(line)
	if found == "" {
		s.t.Fatalf("it printed %q (%v)\n%s", line, err, s.log.text())
	}
	s.url = found
	return s
}

// end waits for the end of the process.
func (s *serverProcess) end() (rest string, status int) {
	s.t.Helper()
	guard := time.AfterFunc(30*time.Second, func() { _ = s.command.Process.Kill() })
	defer guard.Stop()
	text, _ := io.ReadAll(s.out)
	_ = s.command.Wait()
	return string(text), s.command.ProcessState.ExitCode()
}

// infer asks for the logits of one image.
func (s *serverProcess) infer(
	client *http.Client, image [3]float64,
) (status int, logits []float64, err error) {
	body, _ := json.Marshal(map[string]any{
		"inputs": []any{map[string]any{
			"name": "images", "datatype": "FP32", "shape": []int{1, 1, 1, 3}, "data": image,
		}},
		"outputs": []any{map[string]any{"name": "logits"}},
	})
	answer, err := client.Post(s.url+"/v2/models/stub/infer", "application/json",
		bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	var said struct {
		Outputs []struct{ Data []float64 }
		Error   string
	}
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil {
		return 0, nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return answer.StatusCode, nil, fmt.Errorf("%s", said.Error)
	}
	return answer.StatusCode, said.Outputs[0].Data, nil
}

// isAnswer says whether logits are those of an expert of that gain for an image.
func isAnswer(logits []float64, image [3]float64, gain float64) bool {
	if len(logits) != 4 {
		return false
	}
	for _, sign := range []float64{1, -1} {
		right := true
		for c, v := range logits {
			want := sign * gain * image[c%3] * float64(c+1)
			right = right && v > want-1e-3 && v < want+1e-3
		}
		if right {
			return true
		}
	}
	return false
}

func pixelsOf(i int) [3]float64 {
	return [3]float64{float64(i%97) / 10, float64(i%31) / 7, -float64(i%13) / 3}
}

// load asks from many clients until stop is closed, and returns how many answers came; wrong ones
// and failures are errors, but for a refused connection once ending is set.
func (s *serverProcess) load(
	stop <-chan struct{}, ending *atomic.Bool, gains ...float64,
) (answers int64) {
	var count atomic.Int64
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for i := worker; ; i += 8 {
				select {
				case <-stop:
					return
				default:
				}
				image := pixelsOf(i)
				_, logits, err := s.infer(client, image)
				if err != nil && ending.Load() {
					return
				}
				right := false
				for _, gain := range gains {
					right = right || isAnswer(logits, image, gain)
				}
				if err != nil || !right {
					s.t.Errorf("image %v: %v, %v", image, logits, err)
					return
				}
				count.Add(1)
			}
		})
	}
	group.Wait()
	return count.Load()
}

func TestServeAnswersAndDrains(t *testing.T) {
	t.Parallel()
	s := startServing(t, `{"gain": 1}`).ready()
	image := [3]float64{1, 2, 3}
	if _, logits, err := s.infer(http.DefaultClient, image); !isAnswer(logits, image, 1) {
		t.Error(logits, err)
	}
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if out, status := s.end(); status != exitOK || out != "answered 1 images\n" {
		t.Errorf("status %d, %q\n%s", status, out, s.log.text())
	}
}

// Each request that the server accepted is answered, and each answer arrives: the server counts as
// many as the clients.
func TestServeEndsUnderLoad(t *testing.T) {
	t.Parallel()
	s := startServing(t, `{"gain": 1, "pass_seconds": 0.01}`).ready()
	var ending atomic.Bool
	answers := make(chan int64)
	go func() { answers <- s.load(make(chan struct{}), &ending, 1) }()
	time.Sleep(500 * time.Millisecond)
	ending.Store(true)
	_ = s.command.Process.Signal(syscall.SIGTERM)
	out, status := s.end()
	if want := fmt.Sprintf("answered %d images\n", <-answers); status != exitOK || out != want {
		t.Errorf("status %d, %q, want %q\n%s", status, out, want, s.log.text())
	}
}

func TestServeReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	s := startServing(t, `{"gain": 1}`).ready()
	write := func(config string) {
		fresh := filepath.Join(s.folder, "fresh")
		if err := os.WriteFile(fresh, []byte(config), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, filepath.Join(s.folder, "cascade.json")); err != nil {
			t.Fatal(err)
		}
	}
	reload := func(config, says string) {
		before := strings.Count(s.log.text(), says)
		write(config)
		_ = s.command.Process.Signal(syscall.SIGHUP)
		for range 200 {
			if strings.Count(s.log.text(), says) > before {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("no %q in:\n%s", says, s.log.text())
	}
	stop, answers := make(chan struct{}), make(chan int64)
	var never atomic.Bool
	go func() { answers <- s.load(stop, &never, 1, 2, 3) }()
	reload(`{"gain": 2}`, "was loaded again")
	reload(`{"gain": "none`, "the one of before goes on")
	image := [3]float64{1, 2, 3}
	if _, logits, err := s.infer(http.DefaultClient, image); !isAnswer(logits, image, 2) {
		t.Error(logits, err)
	}
	reload(`{"gain": 3}`, "was loaded again")
	if _, logits, err := s.infer(http.DefaultClient, image); !isAnswer(logits, image, 3) {
		t.Error(logits, err)
	}
	close(stop)
	if <-answers == 0 {
		t.Error("nothing was answered meanwhile")
	}
	_ = s.command.Process.Signal(syscall.SIGINT)
	if out, status := s.end(); status != exitOK {
		t.Errorf("status %d, %q\n%s", status, out, s.log.text())
	}
}

func TestServeEncryptedForThoseWithTheToken(t *testing.T) {
	t.Parallel()
	trusted := httptest.NewUnstartedServer(nil)
	trusted.EnableHTTP2 = true // of its client
	trusted.StartTLS()
	defer trusted.Close()
	pair := trusted.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(kind string, content []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}))
	}
	folder := fill(t, map[string]string{
		"chain.pem": encoded("CERTIFICATE", pair.Certificate[0]),
		"key.pem":   encoded("PRIVATE KEY", key), "token": "secret\n",
	})
	s := startServing(t, `{"gain": 1}`, "--tls-certificate", folder+"/chain.pem", "--tls-key",
		folder+"/key.pem", "--token-file", folder+"/token").ready()
	if !strings.HasPrefix(s.url, "https://") {
		t.Fatal(s.url)
	}
	for token, want := range map[string]int{
		"": http.StatusUnauthorized, "Bearer other": http.StatusUnauthorized,
		"Bearer secret": http.StatusOK,
	} {
		request, _ := http.NewRequest(http.MethodGet, s.url+"/v2/models/stub", nil)
		request.Header.Set("Authorization", token)
		answer, err := trusted.Client().Do(request)
		if err != nil || answer.StatusCode != want || answer.ProtoMajor != 2 {
			t.Errorf("%q: %v, %v", token, answer, err)
			continue
		}
		_ = answer.Body.Close()
	}
	_ = s.command.Process.Signal(syscall.SIGTERM)
	if out, status := s.end(); status != exitOK {
		t.Errorf("status %d, %q\n%s", status, out, s.log.text())
	}
}

func TestServeIsNotReadyBeforeItsPortCloses(t *testing.T) {
	t.Parallel()
	s := startServing(t, `{"gain": 1}`, "--drain-seconds", "3").ready()
	began := time.Now()
	_ = s.command.Process.Signal(syscall.SIGTERM)
	status := 0
	for status != http.StatusServiceUnavailable && time.Since(began) < 2*time.Second {
		answer, err := http.Get(s.url + "/v2/health/ready")
		if err != nil {
			t.Fatal(err)
		}
		status = answer.StatusCode
		_ = answer.Body.Close()
		time.Sleep(10 * time.Millisecond)
	}
	image := [3]float64{1, 2, 3}
	_, logits, err := s.infer(http.DefaultClient, image)
	if status != http.StatusServiceUnavailable || !isAnswer(logits, image, 1) {
		t.Errorf("ready: %d; answered %v, %v", status, logits, err)
	}
	out, code := s.end()
	if took := time.Since(began); code != exitOK || took < 3*time.Second {
		t.Errorf("status %d after %v, %q\n%s", code, took, out, s.log.text())
	}
}

func TestSecondSignalEndsServing(t *testing.T) {
	t.Parallel()
	s := startServing(t, `{"gain": 1, "pass_seconds": 20}`).ready()
	go func() { _, _, _ = s.infer(http.DefaultClient, [3]float64{1, 2, 3}) }()
	time.Sleep(300 * time.Millisecond)
	begin := time.Now()
	for range 2 {
		_ = s.command.Process.Signal(syscall.SIGTERM)
		time.Sleep(200 * time.Millisecond)
	}
	if out, status := s.end(); status != 143 || time.Since(begin) > 5*time.Second {
		t.Errorf("status %d after %v, %q", status, time.Since(begin), out)
	}
}

func TestServeIsInterruptedWhileItLoads(t *testing.T) {
	t.Parallel()
	s := startServing(t, `{"gain": 1, "sleep": 60}`)
	for !strings.Contains(s.log.text(), "ready") {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	_ = s.command.Process.Signal(syscall.SIGINT)
	if out, status := s.end(); status != 130 {
		t.Errorf("status %d, %q\n%s", status, out, s.log.text())
	}
}

func TestServeRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	folder := fill(t, map[string]string{"token": " \n", "key.pem": "no key"})
	for arguments, want := range map[string]struct {
		status int
		says   string
	}{
		"--port " + port:                    {exitFailed, "can't be listened on"},
		"--max-queue 3":                     {exitUsage, "the queue holds at least one batch"},
		"--on-alarm shout":                  {exitUsage, "--on-alarm is \"shout\""},
		"--token-file " + folder + "/token": {exitUsage, "which holds no token"},
		"--tls-key " + folder + "/key.pem":  {exitUsage, "belong together"},
		"--cascade " + folder:               {exitUsage, "neither cascade.json nor export.json"},
		"--cascade " + folder + "/absent":   {exitFailed, "there is no such folder"},
		"--threads 0":                       {exitUsage, "at least 1"},
		"--max-wait-ms -1":                  {exitUsage, "between 0 and 60000"},
		"--tls-key " + folder + "/key.pem " + "--tls-certificate " + folder + "/key.pem": {
			exitUsage, "are no pair"},
	} {
		t.Run(arguments, func(t *testing.T) {
			t.Parallel()
			s := startServing(t, `{"gain": 1}`, strings.Fields(arguments)...)
			if out, status := s.end(); status != want.status ||
				!strings.Contains(s.log.text(), want.says) {
				t.Errorf("status %d, %q\n%s", status, out, s.log.text())
			}
		})
	}
}
