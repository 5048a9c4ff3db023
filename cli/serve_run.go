//go:build python

package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"agflow/cli/serving"
	"agflow/cli/serving/web"
)

// serve loads the experts and answers until a signal ends it; it returns how many images it has
// answered. Load is called again on SIGHUP.
func (o serveOptions) serve(
	load func(first bool) (serving.Experts, error),
) (answered int64, err error) {
	// before the experts, whose loading takes seconds: the port may be taken
	listener, scheme, err := o.listen()
	if err != nil {
		return 0, err
	}
	handler := &later{}
	server, failed := web.NewServer(handler, o.web), make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	defer server.Close()
	experts, err := load(true)
	if err != nil {
		return 0, err
	}
	metrics := web.NewMetrics()
	service, err := serving.NewService(experts, o.service, metrics)
	if err != nil {
		return 0, err
	}
	defer func() {
		service.Close()
		answered = service.Answered()
	}()
	handler.use(web.New(service, metrics, o.web))
	stop := make(chan struct{})
	drainOnSignal(sync.OnceFunc(func() { close(stop) }))
	defer o.reloadOnSignal(service, load)()
	o.announce(scheme + "://" + listener.Addr().String())
	select {
	case err := <-failed:
		return 0, failure("the server has ended: %w", err)
	case <-stop:
		return 0, o.shutDown(server, service)
	}
}

func (o serveOptions) listen() (listener net.Listener, scheme string, err error) {
	var pair tls.Certificate
	if o.certificate != "" {
		if pair, err = tls.LoadX509KeyPair(o.certificate, o.key); err != nil {
			return nil, "", usageError("--tls-certificate %s and --tls-key %s are no pair: %w",
				o.certificate, o.key, err)
		}
	}
	listener, err = net.Listen("tcp", o.address)
	if err != nil {
		return nil, "", failure("%s can't be listened on (%w): give another --host or --port",
			o.address, err)
	}
	if o.certificate == "" {
		return listener, "http", nil
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
	}
	return tls.NewListener(listener, config), "https", nil
}

// shutDown is not ready but answers until the balancers know it, then closes the port and answers
// what was accepted, for as long as the grace lasts.
func (o serveOptions) shutDown(server *http.Server, service *serving.Service) error {
	service.Drain()
	if o.drain > 0 {
		o.service.Log.Info("ending: not ready, and still answering", "for", o.drain.String())
		time.Sleep(o.drain)
	}
	o.service.Log.Info("ending: accepted requests are answered first")
	ctx, cancel := context.WithTimeout(context.Background(), o.grace)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return failure("requests were cut off after %v: give more --grace-seconds", o.grace)
	}
	return nil
}

// reloadOnSignal loads the cascade again at each SIGHUP, until the function that it returns is
// called.
func (o serveOptions) reloadOnSignal(
	service *serving.Service, load func(first bool) (serving.Experts, error),
) (end func()) {
	arrived, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(arrived, syscall.SIGHUP)
	go func() {
		defer close(ended)
		for range arrived {
			if err := service.Reload(func() (serving.Experts, error) {
				return load(false)
			}); err != nil {
				o.service.Log.Error("the cascade was not loaded again; the one of before goes on",
					"error", sentence(err))
			} else {
				o.service.Log.Info("the cascade was loaded again")
			}
		}
	}()
	return func() {
		signal.Stop(arrived)
		close(arrived)
		<-ended
	}
}

// later is a handler that says so until there is one.
type later struct{ handler atomic.Pointer[http.Handler] }

func (l *later) use(handler http.Handler) { l.handler.Store(&handler) }

func (l *later) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if handler := l.handler.Load(); handler != nil {
		(*handler).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/v2/health/live" {
		_, _ = w.Write([]byte(`{"live": true}`))
		return
	}
	w.Header().Set("Retry-After", "5")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write([]byte(
		`{"error": "the experts are being loaded; send the request again later"}`))
}
