//go:build python

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// makeCascade saves the example's cascade and some of its test images, float32 [N, 1, 28, 28].
const makeCascade = `
import sys, agflow, torch
heavy, preprocessing, _ = agflow.load_model("example")
light = agflow.models.at_image_size(heavy, 20)
images, labels = zip(*agflow.load_dataset("example:test", preprocessing=preprocessing, limit=512))
images, labels = torch.stack(images), torch.tensor(labels)
predictions = agflow.predict(light, heavy, [(images, labels)])
router = agflow.calibrate_router(predictions, escalation=0.3)
agflow.save(agflow.Cascade(light, heavy, router), sys.argv[1], preprocessing=preprocessing)
images[:256].numpy().tofile(sys.argv[2])
`

const (
	loadImages = 256
	loadPixels = 28 * 28
)

// TestServeUnderLoad sends images that carry their number at 0.8 of the capacity and at twice the
// capacity, for AGFLOW_LOAD_SECONDS each, and compares every answer with that of the image when it
// was sent alone.
func TestServeUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("a test of load is slow")
	}
	length := 10 * time.Second
	if asked := os.Getenv("AGFLOW_LOAD_SECONDS"); asked != "" {
		n, err := strconv.Atoi(asked)
		if err != nil {
			t.Fatal(err)
		}
		length = time.Duration(n) * time.Second
	}
	l := startLoaded(t)
	capacity := l.capacity(5 * time.Second)
	t.Logf("capacity %.0f images/s", capacity)
	for _, share := range []float64{0.8, 2} {
		l.attack(share, share*capacity, length)
	}
	_ = l.command.Process.Signal(syscall.SIGTERM)
	if out, status := l.end(); status != exitOK {
		t.Errorf("status %d, %q\n%s", status, out, l.log.text())
	}
}

// TestRealExpertsReloadUnderLoad loads a real cascade again and again while clients wait for
// answers, and ends the server at last: every request sent before has its own image's answer.
func TestRealExpertsReloadUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("a test of load is slow")
	}
	l := startLoaded(t)
	var ending atomic.Bool
	answers := make(chan int64)
	go func() { answers <- l.askUntil(&ending) }()
	const reloads, says = 5, "was loaded again"
	for k := range reloads {
		_ = l.command.Process.Signal(syscall.SIGHUP)
		for range 1000 {
			if strings.Count(l.log.text(), says) > k {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if got := strings.Count(l.log.text(), says); got != reloads {
		t.Errorf("%d reloads, want %d:\n%s", got, reloads, l.log.text())
	}
	ending.Store(true)
	time.Sleep(100 * time.Millisecond) // the last requests are on their way
	_ = l.command.Process.Signal(syscall.SIGTERM)
	answered := <-answers
	if out, status := l.end(); status != exitOK {
		t.Errorf("status %d, %q\n%s", status, out, l.log.text())
	}
	t.Logf("%d answered over %d reloads and the end", answered, reloads)
}

// askUntil asks from many clients, each of which sends its next image when it has an answer, until
// none may begin any more, and returns how many were answered.
func (l *loaded) askUntil(ending *atomic.Bool) int64 {
	var group sync.WaitGroup
	var count atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	for worker := range 64 {
		group.Go(func() {
			for i := worker; !ending.Load(); i++ {
				status, id, logits, err := l.ask(client, i%loadImages)
				if status != http.StatusOK || id != i%loadImages || !l.right(id, logits) {
					l.t.Errorf("image %d: %d %d %v %v", i, status, id, logits, err)
					return
				}
				count.Add(1)
			}
		})
	}
	group.Wait()
	return count.Load()
}

// loaded is a server of a real cascade and the answers to its images.
type loaded struct {
	*serverProcess
	bodies [][]byte
	header int // bytes of JSON before the pixels
	want   [][]float64
}

func startLoaded(t *testing.T) *loaded {
	t.Helper()
	python := testPython(t)
	folder := t.TempDir()
	cascade, images := filepath.Join(folder, "cascade"), filepath.Join(folder, "images")
	made := exec.Command(python, "-c", makeCascade, cascade, images)
	if out, err := made.CombinedOutput(); err != nil {
		t.Skipf("no cascade could be made with %s: %v\n%s", python, err, out)
	}
	s := &serverProcess{t: t, folder: cascade, log: &lockedBuffer{}}
	s.start(program([]string{"AGFLOW_PYTHON=" + python},
		"serve", "--cascade", cascade, "--port", "0", "--max-queue", "128"))
	l := &loaded{serverProcess: s.ready()}
	content, err := os.ReadFile(images)
	if err != nil || len(content) != 4*loadImages*loadPixels {
		t.Fatal(len(content), err)
	}
	for i := range loadImages {
		l.bodies = append(l.bodies, l.body(i, content[4*i*loadPixels:4*(i+1)*loadPixels]))
	}
	for i := range l.bodies {
		status, _, logits, err := l.ask(http.DefaultClient, i)
		if status != http.StatusOK {
			t.Fatal(i, status, err)
		}
		l.want = append(l.want, logits)
	}
	return l
}

// body is the request for an image, whose id is its number.
func (l *loaded) body(i int, pixels []byte) []byte {
	text := fmt.Sprintf(`{"id": "%04d", "inputs": [{"name": "images", "datatype": "FP32", `+
		`"shape": [1, 1, 28, 28], "parameters": {"binary_data_size": %d}}], `+
		`"outputs": [{"name": "logits", "parameters": {"binary_data": false}}]}`, i, len(pixels))
	l.header = len(text)
	return append([]byte(text), pixels...)
}

func (l *loaded) target(i int) vegeta.Target {
	return vegeta.Target{
		Method: http.MethodPost, URL: l.url + "/v2/models/cascade/infer", Body: l.bodies[i],
		Header: http.Header{"Inference-Header-Content-Length": {strconv.Itoa(l.header)}},
	}
}

func (l *loaded) ask(client *http.Client, i int) (status, id int, logits []float64, err error) {
	target := l.target(i)
	request, err := target.Request()
	if err != nil {
		return 0, 0, nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, 0, nil, err
	}
	defer answer.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(answer.Body); err != nil {
		return 0, 0, nil, err
	}
	id, logits, err = readLogits(body.Bytes())
	return answer.StatusCode, id, logits, err
}

func readLogits(body []byte) (id int, logits []float64, err error) {
	var said struct {
		ID      string
		Outputs []struct{ Data []float64 }
		Error   string
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return 0, nil, err
	}
	if said.Error != "" {
		return 0, nil, fmt.Errorf("%s", said.Error)
	}
	id, err = strconv.Atoi(said.ID)
	return id, said.Outputs[0].Data, err
}

// right says whether logits are those of an image. Products of matrices round by the batch's size.
func (l *loaded) right(id int, logits []float64) bool {
	if len(logits) != len(l.want[id]) {
		return false
	}
	for c, v := range logits {
		if !(math.Abs(v-l.want[id][c]) <= 1e-3) {
			return false
		}
	}
	return true
}

// capacity is how many images a second many waiting clients get answered.
func (l *loaded) capacity(length time.Duration) float64 {
	var ending atomic.Bool
	time.AfterFunc(length, func() { ending.Store(true) })
	return float64(l.askUntil(&ending)) / length.Seconds()
}

// attack sends images at a rate, whatever the answers, and prints what came of it.
func (l *loaded) attack(share, rate float64, length time.Duration) {
	var next atomic.Int64
	targeter := func(t *vegeta.Target) error {
		*t = l.target(int(next.Add(1)) % loadImages)
		return nil
	}
	attacker := vegeta.NewAttacker(vegeta.MaxWorkers(2048), vegeta.Connections(2048),
		vegeta.Timeout(60*time.Second))
	pace := vegeta.Rate{Freq: int(math.Ceil(rate)), Per: time.Second}
	var all vegeta.Metrics
	var accepted, refused int
	var answered vegeta.LatencyMetrics
	middle := 0
	for result := range attacker.Attack(targeter, pace, length, "load") {
		all.Add(result)
		switch result.Code {
		case http.StatusOK:
			accepted++
			answered.Add(result.Latency)
			id, logits, err := readLogits(result.Body)
			if err != nil || !l.right(id, logits) {
				l.t.Fatalf("image %d: %v %v", id, logits, err)
			}
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			refused++
			if result.Headers.Get("Retry-After") == "" {
				l.t.Fatal("a refusal without Retry-After")
			}
		default:
			l.t.Fatalf("status %d: %s %s", result.Code, result.Error, result.Body)
		}
		if middle == 0 && result.Timestamp.Sub(all.Earliest) > length/2 {
			middle = l.residentMB()
		}
	}
	all.Close()
	end := l.residentMB()
	l.t.Logf("%.1fx: %.0f/s for %v: %d answered, %d refused; p50 %v, p99 %v; %d MB in the "+
		"middle, %d MB at the end", share, rate, length, accepted, refused,
		answered.Quantile(0.5).Round(time.Millisecond/10),
		answered.Quantile(0.99).Round(time.Millisecond/10), middle, end)
	if accepted == 0 || share < 1 && refused > 0 {
		l.t.Errorf("%d accepted, %d refused at %.1f of the capacity", accepted, refused, share)
	}
	if middle > 0 && end > middle+middle/10+20 {
		l.t.Errorf("memory grew from %d to %d MB", middle, end)
	}
}

var resident = regexp.MustCompile(`VmRSS:\s+([0-9]+) kB`)

func (l *loaded) residentMB() int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.command.Process.Pid))
	found := resident.FindSubmatch(status)
	if found == nil {
		return 0
	}
	kB, _ := strconv.Atoi(string(found[1]))
	return kB / 1000
}
