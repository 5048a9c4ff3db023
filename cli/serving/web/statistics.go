package web

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"agflow/cli/serving"
)

// inferring are the routes of requests for answers.
var inferring = []string{
	"/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer", "/v1/classify",
}

// timed is how often something was done, and how long it took in all.
type timed struct {
	Count int64 `json:"count"`
	NS    int64 `json:"ns"`
}

func (t *timed) add(count int, took time.Duration) {
	t.Count += int64(count)
	t.NS += took.Nanoseconds()
}

// computeTimes are the parts of a batch's time.
type computeTimes struct {
	Input  timed `json:"compute_input"`
	Infer  timed `json:"compute_infer"`
	Output timed `json:"compute_output"`
}

// add counts a batch as many times as something took part in it.
func (c *computeTimes) add(p serving.Pass, times int) {
	n := time.Duration(times)
	c.Input.add(times, n*p.Input)
	c.Infer.add(times, n*(p.Light+p.Heavy))
	c.Output.add(times, n*p.Output)
}

// tritonStatistics are the sums of Triton's statistics extension, since the start.
type tritonStatistics struct {
	last                 time.Time // of the batches
	images, batches      int64
	success, fail, queue timed
	requests             computeTimes
	bySize               map[int]*computeTimes // of batches, by their images
}

func (t *tritonStatistics) batch(p serving.Pass, at time.Time) {
	t.last = at
	t.images += int64(p.Images)
	t.batches++
	t.queue.add(p.Requests, p.Queued)
	t.requests.add(p, p.Requests)
	if t.bySize == nil {
		t.bySize = map[int]*computeTimes{}
	}
	if t.bySize[p.Images] == nil {
		t.bySize[p.Images] = &computeTimes{}
	}
	t.bySize[p.Images].add(p, 1)
}

func (t *tritonStatistics) request(answered bool, took time.Duration) {
	if answered {
		t.success.add(1, took)
	} else {
		t.fail.add(1, took)
	}
}

// modelStats is a model's entry of Triton's statistics.
type modelStats struct {
	Name           string         `json:"name"`
	Version        string         `json:"version"`
	LastInference  int64          `json:"last_inference"` // milliseconds since 1970; 0 for none
	InferenceCount int64          `json:"inference_count"`
	ExecutionCount int64          `json:"execution_count"`
	Inference      inferenceStats `json:"inference_stats"`
	Batches        []batchStats   `json:"batch_stats"`
}

type inferenceStats struct {
	Success timed `json:"success"`
	Fail    timed `json:"fail"`
	Queue   timed `json:"queue"`
	computeTimes
}

type batchStats struct {
	Size int `json:"batch_size"`
	computeTimes
}

// statistics returns what the tally knows of a model, in Triton's words.
func (t *tally) statistics(m serving.Model) modelStats {
	t.lock.Lock()
	defer t.lock.Unlock()
	of := t.triton
	found := modelStats{
		Name: m.Name, Version: m.Revision, InferenceCount: of.images, ExecutionCount: of.batches,
		Inference: inferenceStats{of.success, of.fail, of.queue, of.requests},
		Batches:   []batchStats{},
	}
	if !of.last.IsZero() {
		found.LastInference = of.last.UnixMilli()
	}
	for _, size := range slices.Sorted(maps.Keys(of.bySize)) {
		found.Batches = append(found.Batches, batchStats{size, *of.bySize[size]})
	}
	return found
}

// modelStatistics is Triton's statistics extension.
func (s *server) modelStatistics(x *exchange, r *http.Request) error {
	m := s.model()
	if r.PathValue("name") != "" { // else of all models, of which there is one
		if err := checkModel(r, m); err != nil {
			return err
		}
	}
	x.Header().Set("Cache-Control", "no-store")
	return writeJSON(x, http.StatusOK, map[string]any{
		"model_stats": []modelStats{s.metrics.tally.statistics(m)},
	})
}
