package web

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"agflow/cli/serving"
)

// soon waits for a condition of another goroutine.
func soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestLargeBodies(t *testing.T) {
	s := newSite(t, func(o *Options, _ *serving.Options, _ *linear) { o.Limits.Body = 10_000 })
	large := strings.Repeat(" ", 10_001)
	for _, path := range []string{inferPath, "/v1/classify", "/v1/labels"} {
		s.post(path, large).refused(t, http.StatusRequestEntityTooLarge, "more than 10000 bytes")
		// of unknown length
		s.do("POST", path, io.MultiReader(strings.NewReader(large))).
			refused(t, http.StatusRequestEntityTooLarge, "more than 10000 bytes")
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(bytes.Repeat([]byte(" "), 5_000_000)) // 5 kB compressed
		w.Close()
		s.do("POST", path, &b, "Content-Encoding: gzip").
			refused(t, http.StatusRequestEntityTooLarge, "more than 10000 bytes")
	}
	s.isAnswer(t, s.post(inferPath, inferBody(imagesOf(1, 1), "")), imagesOf(1, 1))
}

// The strict reader of JSON is slow, and numbers are not its matter.
func TestLargeJSON(t *testing.T) {
	s := newSite(t, nil)
	id := fmt.Sprintf(`,"id":%q`, strings.Repeat("a", 1<<20))
	s.post(inferPath, inferBody(imagesOf(1, 1), id)).
		refused(t, http.StatusRequestEntityTooLarge, "the JSON beside data has", "at most 1048576")
	labels := "[" + strings.Repeat(" ", 1<<20) + "]"
	s.post("/v1/labels", labels).refused(t, http.StatusRequestEntityTooLarge, "of labels has")
}

func TestSlowClients(t *testing.T) {
	s := newSite(t, func(o *Options, _ *serving.Options, _ *linear) {
		o.Limits.ReadBody, o.Limits.ReadHeader = 50*time.Millisecond, 50*time.Millisecond
	})
	dial := func(text string) *bufio.Reader {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, text)
		return bufio.NewReader(c)
	}
	response, err := http.ReadResponse(
		dial("POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"), nil,
	)
	if err != nil || response.StatusCode != http.StatusRequestTimeout {
		t.Fatalf("got %v, %v", response, err)
	}
	// of a body that nobody reads
	refused := dial("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	if response, err = http.ReadResponse(refused, nil); err != nil || response.StatusCode != 404 {
		t.Fatalf("got %v, %v", response, err)
	}
	io.Copy(io.Discard, response.Body)
	if _, err := refused.ReadByte(); err != io.EOF {
		t.Errorf("the connection is not closed: %v", err)
	}
	text, err := io.ReadAll(dial("GET / HTTP/1.1\r\nHo"))
	if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 400") {
		t.Errorf("got %q, %v for half a header", text, err)
	}
}

// Over TLS clients speak HTTP/2, whose deadlines are those of streams.
func TestHTTP2(t *testing.T) {
	hold := make(chan struct{})
	s := newSite(t, func(o *Options, _ *serving.Options, l *linear) {
		o.Limits.ReadBody, l.hold = 200*time.Millisecond, hold
	})
	secure := httptest.NewUnstartedServer(s.Config.Handler)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	plain := s.Server
	defer plain.Close()
	s.Server = secure
	body, send := io.Pipe()
	defer send.Close()
	a := s.do("POST", "/v1/classify", body)
	a.refused(t, http.StatusRequestTimeout, "the body did not come in time")
	if a.ProtoMajor != 2 {
		t.Errorf("the protocol is %s", a.Proto)
	}
	time.AfterFunc(500*time.Millisecond, func() { close(hold) })
	images := imagesOf(2, 1)
	s.isAnswer(t, s.post(inferPath, inferBody(images, "")), images)
}

// The time for a body is not that for an answer.
func TestAnswersMayTakeLongerThanBodies(t *testing.T) {
	hold := make(chan struct{})
	s := newSite(t, func(o *Options, _ *serving.Options, l *linear) {
		o.Limits.ReadBody, l.hold = 200*time.Millisecond, hold
	})
	time.AfterFunc(500*time.Millisecond, func() { close(hold) })
	images := imagesOf(1, 1)
	s.isAnswer(t, s.post(inferPath, inferBody(images, "")), images)
}

func TestDeadlines(t *testing.T) {
	hold := make(chan struct{})
	s := newSite(t, func(o *Options, _ *serving.Options, l *linear) {
		o.Limits.Answer, l.hold = 80*time.Millisecond, hold
	})
	defer close(hold)
	image := inferBody(imagesOf(1, 1), "")
	began := time.Now()
	s.post(inferPath, image).refused(t, http.StatusGatewayTimeout, "no answer within")
	s.do("POST", "/v1/classify", bytes.NewReader(picture(1, 8, 8))).
		refused(t, http.StatusGatewayTimeout, "no answer within")
	if took := time.Since(began); took < 160*time.Millisecond {
		t.Errorf("two deadlines of 80 ms after %v", took)
	}
	s.post(inferPath, image, "Request-Timeout: 0.001").
		refused(t, http.StatusGatewayTimeout, "no answer within")
	s.post(inferPath, inferBody(imagesOf(1, 1), `,"parameters":{"timeout":1000}`)).
		refused(t, http.StatusGatewayTimeout, "no answer within")
	// the server's limit stands
	s.post(inferPath, image, "Request-Timeout: 1e300").
		refused(t, http.StatusGatewayTimeout, "no answer within")
	for _, text := range []string{"soon", "0", "-1", "NaN"} {
		s.post(inferPath, image, "Request-Timeout: "+text).
			refused(t, http.StatusBadRequest, "expected a number of seconds above 0")
	}
}

func TestAClosedConnectionCancels(t *testing.T) {
	hold := make(chan struct{})
	s := newSite(t, func(_ *Options, so *serving.Options, l *linear) {
		l.hold, so.MaxBatch = hold, 1
	})
	defer close(hold)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	for range 2 { // one in the experts' hands, one that waits
		go func() {
			request, _ := http.NewRequestWithContext(ctx, "POST", s.URL+inferPath,
				strings.NewReader(inferBody(imagesOf(1, 1), "")))
			_, err := s.Client().Do(request)
			ended <- err
		}()
	}
	soon(t, "an image waits", func() bool {
		return s.experts.passes.Load() == 1 && s.service.State().Queued == 1
	})
	cancel()
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("an answer after the end")
		}
	}
	soon(t, "none waits", func() bool { return s.service.State().Queued == 0 })
	soon(t, "both are logged", func() bool {
		return strings.Count(s.log.String(), "status=499") == 2
	})
}

func TestAClientThatGoesWithinItsBody(t *testing.T) {
	s := newSite(t, nil)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	c.Close()
	soon(t, "it is logged", func() bool { return strings.Contains(s.log.String(), "status=499") })
	if got := s.scraped(t, `agflow_refusals_total{reason="cancelled"}`); got != 1 {
		t.Errorf("%v requests were cancelled", got)
	}
}

func TestAFullQueueRefuses(t *testing.T) {
	hold := make(chan struct{})
	s := newSite(t, func(_ *Options, so *serving.Options, l *linear) {
		l.hold, so.MaxBatch, so.MaxQueue = hold, 1, 2
	})
	images := imagesOf(1, 1)
	answers := make(chan answer)
	for k := range 3 { // one in the experts' hands, two that wait
		go func() {
			a, _ := s.try("POST", inferPath, strings.NewReader(inferBody(images, "")))
			answers <- a
		}()
		soon(t, "it waits", func() bool {
			return s.experts.passes.Load() == 1 && s.service.State().Queued == k
		})
	}
	a := s.post(inferPath, inferBody(images, ""))
	a.refused(t, http.StatusTooManyRequests, "the queue of images is full")
	if got := a.Header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After is %q", got)
	}
	s.post(inferPath, inferBody(imagesOf(3, 1), "")).refused(t, http.StatusBadRequest, "at most 2")
	close(hold)
	for range 3 {
		s.isAnswer(t, <-answers, images)
	}
}

func TestAServerThatEndsRefuses(t *testing.T) {
	s := newSite(t, nil)
	s.service.Close()
	a := s.post(inferPath, inferBody(imagesOf(1, 1), ""))
	a.refused(t, http.StatusServiceUnavailable, "the server is ending")
	if got := a.Header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After is %q", got)
	}
}

func TestRequestsInMemoryAreBounded(t *testing.T) {
	s := newSite(t, func(o *Options, _ *serving.Options, _ *linear) { o.Limits.Requests = 1 })
	body, send := io.Pipe()
	first := make(chan answer)
	go func() {
		a, _ := s.try("POST", inferPath, body)
		first <- a
	}()
	images := imagesOf(1, 1)
	send.Write([]byte(" "))
	soon(t, "the first is read", func() bool { return len(s.Config.Handler.(*server).slots) == 1 })
	s.post(inferPath, inferBody(images, "")).
		refused(t, http.StatusTooManyRequests, "1 requests are being read or answered")
	io.WriteString(send, inferBody(images, ""))
	send.Close()
	s.isAnswer(t, <-first, images)
	s.isAnswer(t, s.post(inferPath, inferBody(images, "")), images)
}

func TestTheToken(t *testing.T) {
	s := newSite(t, func(o *Options, _ *serving.Options, _ *linear) { o.Token = "s3cret" })
	for _, path := range []string{
		"/v2/health/live", "/v2/health/ready", "/v2/models/linear/ready", "/",
	} {
		if got := s.get(path).StatusCode; got != http.StatusOK {
			t.Errorf("%s: got %d without a token", path, got)
		}
	}
	for _, path := range []string{
		"/v2", "/v2/models/linear", "/v2/models/linear/config", "/metrics", "/v1/status",
		"/v1/monitor",
	} {
		for _, header := range []string{
			"X: y", "Authorization: Bearer s3cre", "Authorization: Basic s3cret",
			"Authorization: s3cret", "Authorization: Bearer ",
		} {
			a := s.do("GET", path, nil, header)
			a.refused(t, http.StatusUnauthorized, "this server wants a token")
			if got := a.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
				t.Errorf("WWW-Authenticate is %q", got)
			}
		}
		a := s.do("GET", path, nil, "Authorization: bearer s3cret")
		if a.StatusCode != http.StatusOK {
			t.Errorf("%s: got %d with the token", path, a.StatusCode)
		}
	}
	for _, path := range []string{inferPath, "/v1/classify", "/v1/labels", "/v2/repository/index"} {
		s.post(path, "").refused(t, http.StatusUnauthorized, "Authorization: Bearer TOKEN")
	}
	images := imagesOf(1, 1)
	s.isAnswer(t, s.post(inferPath, inferBody(images, ""), "Authorization: Bearer s3cret"), images)
	if strings.Contains(s.log.String(), "s3cret") {
		t.Error("the token is in the log")
	}
}

func TestPagesOfOtherSites(t *testing.T) {
	s := newSite(t, nil)
	images := imagesOf(1, 1)
	for header, refused := range map[string]bool{
		"Origin: http://elsewhere.example": true, "Sec-Fetch-Site: cross-site": true,
		"Origin: " + s.URL: false, "Sec-Fetch-Site: same-origin": false, "": false,
	} {
		a := s.post(inferPath, inferBody(images, ""), header)
		if refused {
			a.refused(t, http.StatusForbidden, "a page of another site asks")
		} else {
			s.isAnswer(t, a, images)
		}
	}
}

func TestFailuresOfTheServer(t *testing.T) {
	s := newSite(t, func(_ *Options, _ *serving.Options, l *linear) { l.fails = errExperts })
	a := s.post(inferPath, inferBody(imagesOf(1, 1), ""))
	a.refused(t, http.StatusInternalServerError, "the server failed on this request; its log says")
	if strings.Contains(string(a.body), "secret") || !strings.Contains(s.log.String(), "/secret") {
		t.Errorf("the client got %s", a.body)
	}
	a = s.do("POST", "/v1/classify", strings.NewReader("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00"+
		"\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"))
	a.refused(t, http.StatusInternalServerError, "the server failed on this request; its log says")
	if log := s.log.String(); !strings.Contains(log, "an experts' panic at a GIF") ||
		!strings.Contains(log, "helpers_test.go") {
		t.Errorf("the log lacks the panic and where it was: %s", log)
	}
	if got := s.get("/v2/health/live").StatusCode; got != http.StatusOK {
		t.Errorf("after a panic: %d", got)
	}
}
