package web

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestHealthAndMetadata(t *testing.T) {
	s := newSite(t, nil)
	for path, want := range map[string]map[string]any{
		"/v2/health/live":                       {"live": true},
		"/v2/health/ready":                      {"ready": true},
		"/v2/models/linear/ready":               {"ready": true, "name": "linear"},
		"/v2/models/linear/versions/5f3a/ready": {"ready": true, "name": "linear"},
	} {
		var got map[string]any
		s.get(path).read(t, &got)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
	var server struct {
		Name, Version string
		Extensions    []string
	}
	s.get("/v2").read(t, &server)
	s.get("/v2/").read(t, &server)
	if server.Name != "agflow" || server.Version != "1.2.3" ||
		!strings.Contains(strings.Join(server.Extensions, " "), "binary_tensor_data") {
		t.Errorf("got %+v", server)
	}
	var model struct {
		Name     string
		Versions []string
		Inputs   []tensorMetadata
		Outputs  []tensorMetadata
	}
	s.get("/v2/models/linear/versions/5f3a").read(t, &model)
	if model.Name != "linear" || model.Versions[0] != "5f3a" ||
		!reflect.DeepEqual(model.Inputs, []tensorMetadata{{"images", "FP32", []int{-1, 3, 8, 8}}}) {
		t.Errorf("got %+v", model)
	}
	datatypes := map[string]string{}
	for _, o := range model.Outputs {
		datatypes[o.Name] = o.Datatype
	}
	if want := map[string]string{
		"logits": "FP32", "class": "INT64", "probability": "FP32", "expert": "BYTES",
		"prior": "FP32", "cost": "FP32", "id": "BYTES",
	}; !reflect.DeepEqual(datatypes, want) {
		t.Errorf("got outputs %v, want %v", datatypes, want)
	}
	var config struct {
		Size  int `json:"max_batch_size"`
		Input []struct {
			DataType string `json:"data_type"`
			Dims     []int
		}
	}
	s.get("/v2/models/linear/config").read(t, &config)
	if input := config.Input[0]; config.Size != 16 || input.DataType != "TYPE_FP32" ||
		input.Dims[2] != 8 {
		t.Errorf("got %+v", config)
	}
	var index []map[string]string
	s.post("/v2/repository/index", "").read(t, &index)
	if len(index) != 1 || index[0]["state"] != "READY" || index[0]["version"] != "5f3a" {
		t.Errorf("got %v", index)
	}
}

func TestADrainingServerIsLiveAndNotReady(t *testing.T) {
	s := newSite(t, nil)
	s.service.Drain()
	if got := s.get("/v2/health/live").StatusCode; got != http.StatusOK {
		t.Errorf("live: got %d", got)
	}
	s.get("/v2/health/ready").refused(t, http.StatusServiceUnavailable, "ending")
	s.get("/v2/models/linear/ready").refused(t, http.StatusServiceUnavailable, "ending")
	var index []map[string]string
	s.post("/v2/repository/index", "").read(t, &index)
	if index[0]["state"] != "UNAVAILABLE" {
		t.Errorf("got %v", index)
	}
}

func TestWhatIsNotServed(t *testing.T) {
	s := newSite(t, nil)
	for _, c := range []struct {
		method, path string
		status       int
		words        string
	}{
		{"GET", "/v2/models/other", 404, `the model "other" is not served here; "linear" is`},
		{"GET", "/v2/models/linear/versions/7", 404, `version "7" of "linear" is not served`},
		{"POST", "/v2/models/other/infer", 404, `the model "other"`},
		{"GET", "/v2/models/linear/trace/setting", 404, "is not served here; the routes are"},
		{"GET", "/v2/models/other/stats", 404, `the model "other" is not served here`},
		{"GET", "/v2/models/linear/versions/7/stats", 404, `version "7" of "linear" is not`},
		{"GET", "/v2/systemsharedmemory/status", 404, "is not served here"},
		{"GET", "/favicon.ico", 404, "is not served here"},
		{"GET", "/v1/classify", 405, `"GET" is no method of "/v1/classify"; it takes POST`},
		{"DELETE", "/v2", 405, "it takes GET"},
	} {
		a := s.do(c.method, c.path, nil)
		a.refused(t, c.status, c.words)
		if allowed := a.Header.Get("Allow"); (c.status == 405) != (allowed != "") {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, allowed)
		}
	}
	if got := s.do("HEAD", "/v2/health/ready", nil); got.StatusCode != 200 || len(got.body) > 0 {
		t.Errorf("HEAD: got %d %q", got.StatusCode, got.body)
	}
}
