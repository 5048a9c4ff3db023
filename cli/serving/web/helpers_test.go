package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agflow/cli/serving"
	"agflow/core/fault"
	"agflow/core/routing"
	"agflow/core/routing/monitor"
	"agflow/core/tensor"
)

const (
	channels, side, classes = 3, 8, 5
	size                    = channels * side * side
)

// linear are two linear experts in Go, the light one with noise on its weights.
type linear struct {
	light, heavy []float32 // [classes, size]
	router       routing.Router
	hold         chan struct{} // where it is there, a batch waits until it is closed
	passes       atomic.Int32  // that the light expert has begun
	fails        error
	audits       float64 // share of the images that stay with the light expert
}

// newLinear returns the experts, each time the same.
func newLinear() *linear {
	drawn := drawn()
	return &linear{light: drawn.light, heavy: drawn.heavy, router: drawn.router, audits: 0.25}
}

// drawn draws the experts and calibrates their router on images of their own.
var drawn = sync.OnceValue(func() *linear {
	random := rand.New(rand.NewPCG(7, 7))
	l := &linear{}
	for range classes * size {
		weight := float32(random.NormFloat64())
		l.heavy = append(l.heavy, weight)
		l.light = append(l.light, weight+0.3*float32(random.NormFloat64()))
	}
	const n = 2000
	images := imagesOf(n, 1)
	light, _ := tensor.NewView(logits(l.light, images), n, classes)
	heavy, _ := tensor.NewView(logits(l.heavy, images), n, classes)
	answers, priors, err := routing.Priors(light, 1, routing.LightExpert)
	if err != nil {
		panic(err)
	}
	labels, _, _ := routing.Priors(heavy, 1, routing.HeavyExpert)
	l.router, err = routing.NewRouter(routing.Samples{
		Priors:       priors,
		LightCorrect: routing.BitsOf(n, func(i int) bool { return answers[i] == labels[i] }),
		HeavyCorrect: routing.BitsOf(n, func(i int) bool { return i%20 > 0 }),
		Cost:         routing.Cost{Light: 1, Heavy: 4, Unit: routing.MACs},
	}, routing.Request{Tolerance: ptr(0.02), Confidence: 0.95})
	if err != nil || l.router.Verdict != routing.Pass {
		panic(fmt.Sprint(l.router.Verdict, err))
	}
	return l
})

func ptr[T any](value T) *T { return &value }

// imagesOf draws images [n, C, H, W] whose numbers are float16, too.
func imagesOf(n int, seed uint64) []float32 {
	random := rand.New(rand.NewPCG(seed, 0))
	images := make([]float32, n*size)
	for i := range images {
		images[i] = float32(random.IntN(2001)-1000) / 1024
	}
	return images
}

func logits(weights, images []float32) (all []float32) {
	for i := 0; i < len(images); i += size {
		for c := range classes {
			sum := float32(0)
			for k := range size {
				sum += weights[c*size+k] * images[i+k]
			}
			all = append(all, sum)
		}
	}
	return all
}

func (l *linear) Model() serving.Model {
	return serving.Model{
		Name: "linear", Revision: "5f3a", Runtime: "go", Channels: channels, Height: side,
		Width: side, Classes: classes, Router: l.router,
		ClassNames: []string{"ant", "bee", "cat", "dog", "<eel>"},
		Cost:       routing.Cost{Light: 1, Heavy: 4, Unit: routing.MACs},
	}
}

// Prepare takes the pixels of an image at a grid.
func (l *linear) Prepare(encoded []byte) ([]float32, error) {
	decoded, format, err := image.Decode(bytes.NewReader(encoded))
	if err != nil {
		return nil, fault.New(fault.Value, "the image can't be decoded: %w", err)
	}
	if format == "gif" {
		panic("an experts' panic at a GIF")
	}
	prepared := make([]float32, size)
	b := decoded.Bounds()
	for at := range side * side {
		x, y := b.Min.X+at%side*b.Dx()/side, b.Min.Y+at/side*b.Dy()/side
		pixel := color.NRGBAModel.Convert(decoded.At(x, y)).(color.NRGBA)
		for c, v := range []uint8{pixel.R, pixel.G, pixel.B} {
			prepared[c*side*side+at] = float32(v)/128 - 1
		}
	}
	return prepared, nil
}

func (l *linear) Light(images []float32, n int) ([]float32, error) {
	l.passes.Add(1)
	if l.hold != nil {
		<-l.hold
	}
	return logits(l.light, images), l.fails
}

func (l *linear) Heavy(images []float32, rows []int32) ([]float32, error) {
	return logits(l.heavy, images), nil
}

func (l *linear) Close() error { return nil }

// site is a server on the loopback with what stands behind it.
type site struct {
	*httptest.Server
	t       testing.TB
	experts *linear
	service *serving.Service
	log     *lines
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newSite starts a server; change, where it is there, changes its options and experts before.
func newSite(t testing.TB, change func(*Options, *serving.Options, *linear)) *site {
	t.Helper()
	s := &site{t: t, experts: newLinear(), log: &lines{}}
	o := Options{Version: "1.2.3", Limits: StandardLimits}
	o.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	so := serving.Options{
		MaxBatch: 16, MaxWait: time.Millisecond, MaxQueue: 64, Log: o.Log,
		Watch: func(m serving.Model) (serving.Watch, error) {
			watched := monitor.DefaultOptions()
			watched.Share, watched.RaisedShare = s.experts.audits, 1
			return serving.NewWatch(m, serving.WatchOptions{Options: watched, Log: o.Log})
		},
	}
	if change != nil {
		change(&o, &so, s.experts)
	}
	metrics := NewMetrics()
	service, err := serving.NewService(s.experts, so, metrics)
	if err != nil {
		t.Fatal(err)
	}
	s.service = service
	s.Server = httptest.NewUnstartedServer(nil)
	s.Config = NewServer(New(service, metrics, o), o)
	s.Start()
	t.Cleanup(func() {
		s.Close()
		service.Close()
	})
	return s
}

// report is what the monitor of the promise says.
func (s *site) report() monitor.Report { return s.service.State().Monitor.(monitor.Report) }

// answer is what came back.
type answer struct {
	*http.Response
	body []byte
}

// do sends a request with headers "Name: value".
func (s *site) do(method, path string, body io.Reader, headers ...string) answer {
	s.t.Helper()
	a, err := s.try(method, path, body, headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *site) try(method, path string, body io.Reader, headers ...string) (answer, error) {
	request, err := http.NewRequest(method, s.URL+path, body)
	if err != nil {
		return answer{}, err
	}
	for _, header := range headers {
		if name, value, found := strings.Cut(header, ": "); found {
			request.Header.Set(name, value)
		}
	}
	response, err := s.Client().Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return answer{response, content}, err
}

func (s *site) get(path string) answer { s.t.Helper(); return s.do("GET", path, nil) }

func (s *site) post(path, body string, headers ...string) answer {
	s.t.Helper()
	return s.do("POST", path, strings.NewReader(body), headers...)
}

// refused demands a status and an error sentence with some words.
func (a answer) refused(t *testing.T, status int, words ...string) {
	t.Helper()
	var said struct{ Error string }
	if err := json.Unmarshal(a.body, &said); err != nil || a.StatusCode != status {
		t.Fatalf("got %d %.300s (%v), want %d with a JSON error", a.StatusCode, a.body, err, status)
	}
	for _, word := range words {
		if !strings.Contains(said.Error, word) {
			t.Errorf("%q lacks %q", said.Error, word)
		}
	}
}

// read demands status 200 and reads the JSON.
func (a answer) read(t *testing.T, into any) {
	t.Helper()
	if a.StatusCode != http.StatusOK {
		t.Fatalf("got %d %.500s", a.StatusCode, a.body)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("%v in %.300s", err, a.body)
	}
}

// expected are the cascade's answers, from the experts and the router alone.
func (l *linear) expected(t testing.TB, images []float32) (all []serving.Answer) {
	t.Helper()
	for i := 0; i < len(images); i += size {
		light := logits(l.light, images[i:i+size])
		view, _ := tensor.NewView(light, 1, classes)
		decided, err := l.router.Decide(view)
		if err != nil {
			t.Fatal(err)
		}
		a := serving.Answer{
			Logits: light, Class: int(decided.Prediction[0]), Expert: "light",
			Prior: decided.Prior[0],
		}
		if decided.Escalate[0] {
			a.Expert, a.Logits = "heavy", logits(l.heavy, images[i:i+size])
			a.Class = greatest(a.Logits, 1)[0]
		}
		all = append(all, a)
	}
	return all
}

// picture is a PNG of random pixels.
func picture(seed uint64, width, height int) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	drawn := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range drawn.Pix {
		drawn.Pix[i] = uint8(random.UintN(256))
		if i%4 == 3 {
			drawn.Pix[i] = 255
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, drawn); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// inferJSON is a request for images in JSON, with more keys behind the inputs.
func inferBody(images []float32, more string) string {
	numbers, _ := json.Marshal(images)
	return fmt.Sprintf(`{"inputs":[{"name":"images","datatype":"FP32","shape":[%d,%d,%d,%d],`+
		`"data":%s}]%s}`, len(images)/size, channels, side, side, numbers, more)
}

var errExperts = errors.New("the experts' own words, with a path /secret")
