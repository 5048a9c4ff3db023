package web

import (
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"agflow/cli/serving"
)

// Metrics are what Prometheus reads at /metrics. They are the [serving.Observer] of one cascade.
type Metrics struct {
	registry       *prometheus.Registry
	tally          *tally
	requests       *prometheus.CounterVec
	requestSeconds *prometheus.HistogramVec
	answerSeconds  *prometheus.HistogramVec
	batchImages    prometheus.Histogram
	queue          prometheus.Gauge
	refusals       *prometheus.CounterVec
	reloads        *prometheus.CounterVec
}

var _ serving.Observer = (*Metrics)(nil)

// NewMetrics returns metrics of which all are 0.
func NewMetrics() *Metrics {
	registry, tally := prometheus.NewRegistry(), &tally{}
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	make := promauto.With(registry)
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15) // to 16 s
	for name, sum := range sums {
		make.NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: sum.help, ConstLabels: sum.labels},
			func() float64 {
				t, _ := tally.read()
				return sum.of(t)
			},
		)
	}
	return &Metrics{
		registry: registry, tally: tally,
		requests: make.NewCounterVec(prometheus.CounterOpts{
			Name: "agflow_requests_total", Help: "Requests by route and status.",
		}, []string{"path", "status"}),
		requestSeconds: make.NewHistogramVec(prometheus.HistogramOpts{
			Name: "agflow_request_seconds", Help: "From a request's header to its answer's end.",
			Buckets: seconds,
		}, []string{"path"}),
		answerSeconds: make.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "agflow_answer_seconds",
			Help:    "From an image's queueing to its answer, by the expert that answered.",
			Buckets: seconds,
		}, []string{"expert"}),
		batchImages: make.NewHistogram(prometheus.HistogramOpts{
			Name: "agflow_batch_images", Help: "Images of a batch.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10), // to 512
		}),
		queue: make.NewGauge(prometheus.GaugeOpts{
			Name: "agflow_queue_images", Help: "Images that wait for a batch.",
		}),
		refusals: make.NewCounterVec(prometheus.CounterOpts{
			Name: "agflow_refusals_total", Help: "Requests that were refused, by reason.",
		}, []string{"reason"}),
		reloads: make.NewCounterVec(prometheus.CounterOpts{
			Name: "agflow_reloads_total", Help: "Loads of a new cascade while serving.",
		}, []string{"result"}),
	}
}

// sums are the counters that the tally keeps.
var sums = map[string]struct {
	help   string
	labels prometheus.Labels
	of     func(totals) float64
}{
	"agflow_images_total": {
		"Images that the light expert computed.", nil,
		func(t totals) float64 { return float64(t.Images) },
	},
	"agflow_escalated_images_total": {
		"Images that escalated to the heavy expert.", nil,
		func(t totals) float64 { return float64(t.Escalated) },
	},
	"agflow_audited_images_total": {
		"Images that the heavy expert computed for an audit alone.", nil,
		func(t totals) float64 { return float64(t.Audited) },
	},
	"agflow_cost_total": {
		"What answers were charged, in passes of the heavy expert for one image.", nil,
		func(t totals) float64 { return t.Cost },
	},
	"agflow_light_seconds_total": {
		"Time of the light expert.", nil,
		func(t totals) float64 { return t.light.Seconds() },
	},
	"agflow_heavy_seconds_total": {
		"Time of the heavy expert.", nil,
		func(t totals) float64 { return t.heavy.Seconds() },
	},
}

// Batch counts a batch.
func (m *Metrics) Batch(p serving.Pass) {
	m.tally.batch(p, time.Now())
	m.batchImages.Observe(float64(p.Images))
}

// Answered counts an answer.
func (m *Metrics) Answered(expert string, cost float64, waited time.Duration) {
	m.tally.answer(answered{expert, cost, waited, time.Now()})
	m.answerSeconds.WithLabelValues(expert).Observe(waited.Seconds())
}

// Refused counts a refused request.
func (m *Metrics) Refused(reason string) { m.refusals.WithLabelValues(reason).Inc() }

// Queue keeps how many images wait.
func (m *Metrics) Queue(images int) { m.queue.Set(float64(images)) }

// Reloaded counts a load of a new cascade.
func (m *Metrics) Reloaded(ok bool) {
	m.reloads.WithLabelValues(map[bool]string{true: "ok", false: "failed"}[ok]).Inc()
}

// request counts an answered request.
func (m *Metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.requestSeconds.WithLabelValues(route).Observe(took.Seconds())
	if slices.Contains(inferring, route) {
		m.tally.request(status == http.StatusOK, took)
	}
}

// watch adds what is read of the cascade itself.
func (m *Metrics) watch(cascade serving.Cascade, version string) {
	m.registry.MustRegister(stateCollector{cascade})
	promauto.With(m.registry).NewGauge(prometheus.GaugeOpts{
		Name: "agflow_build_info", Help: "1, with what the server was built of.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	}).Set(1)
}

func (s *server) scrape(x *exchange, r *http.Request) error {
	promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}).ServeHTTP(x, r)
	return nil
}
