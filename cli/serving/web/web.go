// Package web has the HTTP side of a cascade in service: the Open Inference Protocol v2 over REST
// with Triton's binary tensors, answers to encoded images, labels that come later, metrics and a
// status page. It knows the cascade by the interface [serving.Cascade].
package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"

	"agflow/cli/serving"
)

// server has the handlers.
type server struct {
	Options
	cascade serving.Cascade
	metrics *Metrics
	routes  *http.ServeMux
	slots   chan struct{} // one for each request with a body
}

// New returns the handler of all routes. The metrics are those that the cascade reports to.
func New(cascade serving.Cascade, metrics *Metrics, o Options) http.Handler {
	s := &server{
		Options: o, cascade: cascade, metrics: metrics, routes: http.NewServeMux(),
		slots: make(chan struct{}, o.Limits.Requests),
	}
	metrics.watch(cascade, o.Version)
	s.open("GET /{$}", s.page)
	s.open("GET /v2/health/live", s.live)
	s.open("GET /v2/health/ready", s.ready)
	s.open("GET /v2/models/{name}/ready", s.modelReady)
	s.open("GET /v2/models/{name}/versions/{version}/ready", s.modelReady)

	s.guarded("GET /v2", s.serverMetadata)
	s.guarded("GET /v2/{$}", s.serverMetadata)
	s.guarded("GET /v2/models/{name}", s.modelMetadata)
	s.guarded("GET /v2/models/{name}/versions/{version}", s.modelMetadata)
	s.guarded("GET /v2/models/{name}/config", s.modelConfig)
	s.guarded("GET /v2/models/{name}/versions/{version}/config", s.modelConfig)
	s.guarded("GET /v2/models/stats", s.modelStatistics)
	s.guarded("GET /v2/models/{name}/stats", s.modelStatistics)
	s.guarded("GET /v2/models/{name}/versions/{version}/stats", s.modelStatistics)
	s.guarded("POST /v2/repository/index", s.repositoryIndex)
	s.guarded("GET /v1/status", s.status)
	s.guarded("GET /v1/monitor", s.monitor)
	s.guarded("GET /metrics", s.scrape)

	s.guarded("POST /v2/models/{name}/infer", s.limited(s.infer))
	s.guarded("POST /v2/models/{name}/versions/{version}/infer", s.limited(s.infer))
	s.guarded("POST /v1/classify", s.limited(s.classify))
	s.guarded("POST /v1/labels", s.limited(s.labels))
	s.open("/", s.unknown)
	return s
}

// quiet are the routes that probes and pages ask every few seconds.
var quiet = []string{"/v2/health/live", "/v2/health/ready", "/metrics", "/v1/status"}

// handler answers a request; an error is the refusal of it.
type handler func(x *exchange, r *http.Request) error

// open adds a route that needs no token.
func (s *server) open(pattern string, h handler) {
	s.routes.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		x := w.(*exchange)
		if err := h(x, r); err != nil {
			s.refused(x, err)
		}
	})
}

// crossOrigin knows what a browser sends for the pages of other sites.
var crossOrigin = http.NewCrossOriginProtection()

// guarded adds a route that needs the token, where there is one, and that pages of other sites
// can't post to: a browser would do so for them, from within the network.
func (s *server) guarded(pattern string, h handler) {
	s.open(pattern, func(x *exchange, r *http.Request) error {
		if crossOrigin.Check(r) != nil {
			return refuse(http.StatusForbidden, "a page of another site asks; send the request "+
				"from a page of this server, or from a program")
		}
		if !s.authorized(r) {
			return refuse(http.StatusUnauthorized,
				"this server wants a token; send the header Authorization: Bearer TOKEN")
		}
		return h(x, r)
	})
}

// authorized compares hashes, so that the time says nothing of the token, its length included.
func (s *server) authorized(r *http.Request) bool {
	if s.Token == "" {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	want, got := sha256.Sum256([]byte(s.Token)), sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// limited bounds the requests whose bodies are in memory.
func (s *server) limited(h handler) handler {
	return func(x *exchange, r *http.Request) error {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
			return h(x, r)
		default:
			return refuse(http.StatusTooManyRequests, "%d requests are being read or answered, "+
				"which is the limit; send the request again later", s.Limits.Requests)
		}
	}
}

// unknown answers what no other route does: 405 where another method would find one.
func (s *server) unknown(x *exchange, r *http.Request) error {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := s.routes.Handler(other); strings.HasPrefix(pattern, method) {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 && !slices.Contains(allowed, r.Method) {
		x.Header().Set("Allow", strings.Join(allowed, ", "))
		return refuse(http.StatusMethodNotAllowed, "%.20q is no method of %.100q; it takes %s",
			r.Method, r.URL.Path, strings.Join(allowed, ", "))
	}
	return refuse(http.StatusNotFound, "%.100q is not served here; the routes are /v2/models/%s, "+
		"/v1/classify, /v1/labels, /v1/monitor, /v1/status and /metrics",
		r.URL.Path, s.model().Name)
}
