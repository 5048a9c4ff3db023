package web

import (
	"fmt"
	"testing"
	"time"

	"agflow/cli/serving"
)

// statisticsOf are a model's entry as a client reads it.
func (s *site) statisticsOf(t *testing.T, path string) modelStats {
	t.Helper()
	var found struct {
		Stats []modelStats `json:"model_stats"`
	}
	s.get(path).read(t, &found)
	if len(found.Stats) != 1 {
		t.Fatalf("%s: got %d models", path, len(found.Stats))
	}
	return found.Stats[0]
}

func TestTritonStatistics(t *testing.T) {
	s := newSite(t, nil)
	const path = "/v2/models/linear/stats"
	empty := s.statisticsOf(t, path)
	if empty.Name != "linear" || empty.Version != "5f3a" || empty.LastInference != 0 ||
		empty.Inference != (inferenceStats{}) || empty.Batches == nil || len(empty.Batches) > 0 {
		t.Errorf("got %+v", empty)
	}
	began := time.Now()
	for range 3 {
		s.isAnswer(t, s.post(inferPath, inferBody(imagesOf(5, 1), "")), imagesOf(5, 1))
	}
	s.post("/v1/classify", string(picture(1, 8, 8)))
	s.post(inferPath, "{").refused(t, 400)
	took := time.Since(began).Nanoseconds()
	got := s.statisticsOf(t, path)
	if got.InferenceCount != 16 || got.ExecutionCount != 4 {
		t.Errorf("%d images in %d batches", got.InferenceCount, got.ExecutionCount)
	}
	if ms := got.LastInference; ms < began.UnixMilli() || ms > time.Now().UnixMilli() {
		t.Errorf("the last one was at %d", ms)
	}
	all := got.Inference
	for name, counted := range map[string]timed{
		"success": all.Success, "queue": all.Queue, "input": all.Input, "infer": all.Infer,
		"output": all.Output,
	} {
		if counted.Count != 4 || counted.NS <= 0 || counted.NS > took {
			t.Errorf("%s: got %+v", name, counted)
		}
	}
	if all.Fail.Count != 1 || all.Fail.NS <= 0 {
		t.Errorf("failed: %+v", all.Fail)
	}
	// of requests that came one after another, the parts are in the whole
	parts := all.Queue.NS + all.Input.NS + all.Infer.NS + all.Output.NS
	if parts > all.Success.NS {
		t.Errorf("parts of %d ns in %d ns", parts, all.Success.NS)
	}
	if len(got.Batches) != 2 || got.Batches[0].Size != 1 || got.Batches[1].Size != 5 ||
		got.Batches[0].Infer.Count != 1 || got.Batches[1].Infer.Count != 3 ||
		got.Batches[0].Infer.NS+got.Batches[1].Infer.NS != all.Infer.NS {
		t.Errorf("got %+v", got.Batches)
	}
	for _, other := range []string{"/v2/models/stats", "/v2/models/linear/versions/5f3a/stats"} {
		if same := s.statisticsOf(t, other); fmt.Sprint(same) != fmt.Sprint(got) {
			t.Errorf("%s: got %+v, want %+v", other, same, got)
		}
	}
}

// A request in two batches takes part in both, and a batch of two requests counts for both.
func TestTritonStatisticsByHand(t *testing.T) {
	tally, at := &tally{}, time.UnixMilli(1_700_000_000_123)
	tally.batch(serving.Pass{
		Images: 16, Requests: 2, Queued: 7, Input: 1, Light: 10, Heavy: 20, Output: 3,
	}, time.UnixMilli(5))
	tally.batch(serving.Pass{
		Images: 4, Requests: 1, Queued: 30, Input: 2, Light: 5, Output: 1,
	}, at)
	tally.request(true, 100)
	tally.request(true, 200)
	tally.request(false, 50)
	got := tally.statistics(serving.Model{Name: "photos", Revision: "1"})
	four := computeTimes{timed{1, 2}, timed{1, 5}, timed{1, 1}}
	sixteen := computeTimes{timed{1, 1}, timed{1, 30}, timed{1, 3}}
	want := modelStats{
		Name: "photos", Version: "1", LastInference: 1_700_000_000_123, InferenceCount: 20,
		ExecutionCount: 2,
		Inference: inferenceStats{
			timed{2, 300}, timed{1, 50}, timed{3, 37},
			computeTimes{timed{3, 4}, timed{3, 65}, timed{3, 7}},
		},
		Batches: []batchStats{{4, four}, {16, sixteen}},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
