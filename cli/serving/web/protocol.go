package web

import (
	"net/http"

	"agflow/cli/serving"
)

// The names and types of the Open Inference Protocol.
const (
	inputName = "images"
	fp16      = "FP16"
	bf16      = "BF16"
	fp32      = "FP32"
	fp64      = "FP64"
	int64Type = "INT64"
	bytesType = "BYTES"
	platform  = "agflow_cascade"
)

// tensorMetadata describes an input or an output; -1 is the number of images.
type tensorMetadata struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
}

func inputsOf(m serving.Model) []tensorMetadata {
	return []tensorMetadata{{inputName, fp32, []int{-1, m.Channels, m.Height, m.Width}}}
}

func (s *server) live(x *exchange, _ *http.Request) error {
	return writeJSON(x, http.StatusOK, map[string]bool{"live": true})
}

// ready answers 503 while no image can be answered, with the reason.
func (s *server) ready(x *exchange, _ *http.Request) error {
	status, body := s.readiness()
	return writeJSON(x, status, body)
}

func (s *server) readiness() (status int, body map[string]any) {
	state := s.cascade.State()
	switch {
	case state.Draining:
		return http.StatusServiceUnavailable,
			map[string]any{"ready": false, "error": serving.ErrDraining.Error()}
	case !state.Ready:
		return http.StatusServiceUnavailable,
			map[string]any{"ready": false, "error": state.NotReady}
	}
	return http.StatusOK, map[string]any{"ready": true}
}

func (s *server) modelReady(x *exchange, r *http.Request) error {
	model := s.model()
	if err := checkModel(r, model); err != nil {
		return err
	}
	status, body := s.readiness()
	body["name"] = model.Name
	return writeJSON(x, status, body)
}

// model is what is served now.
func (s *server) model() serving.Model {
	held := s.cascade.Hold()
	defer held.Release()
	return held.Model()
}

// checkModel refuses a path that names another model, or another version.
func checkModel(r *http.Request, m serving.Model) error {
	if name := r.PathValue("name"); name != m.Name {
		return refuse(http.StatusNotFound, "the model %.100q is not served here; %q is", name,
			m.Name)
	}
	if version := r.PathValue("version"); version != "" && version != m.Revision {
		return refuse(http.StatusNotFound,
			"version %.100q of %q is not served; its version is %q, and a path without /versions "+
				"takes any", version, m.Name, m.Revision)
	}
	return nil
}

func (s *server) serverMetadata(x *exchange, _ *http.Request) error {
	return writeJSON(x, http.StatusOK, map[string]any{
		"name": "agflow", "version": s.Version, "extensions": []string{
			"binary_tensor_data", "classification", "model_configuration", "statistics",
		},
	})
}

func (s *server) modelMetadata(x *exchange, r *http.Request) error {
	m := s.model()
	if err := checkModel(r, m); err != nil {
		return err
	}
	return writeJSON(x, http.StatusOK, map[string]any{
		"name": m.Name, "versions": []string{m.Revision}, "platform": platform,
		"inputs": inputsOf(m), "outputs": outputsOf(m),
	})
}

// modelConfig is Triton's description of a model, for the clients that ask for it.
func (s *server) modelConfig(x *exchange, r *http.Request) error {
	m := s.model()
	if err := checkModel(r, m); err != nil {
		return err
	}
	return writeJSON(x, http.StatusOK, map[string]any{
		"name": m.Name, "platform": platform, "max_batch_size": m.MaxBatch,
		"input": configured(inputsOf(m)), "output": configured(outputsOf(m)),
	})
}

// configured gives tensors as Triton's configuration does: without the number of images.
func configured(tensors []tensorMetadata) []map[string]any {
	var all []map[string]any
	for _, t := range tensors {
		datatype, dims := "TYPE_"+t.Datatype, t.Shape[1:]
		if t.Datatype == bytesType {
			datatype = "TYPE_STRING"
		}
		if len(dims) == 0 {
			dims = []int{1}
		}
		all = append(all, map[string]any{"name": t.Name, "data_type": datatype, "dims": dims})
	}
	return all
}

func (s *server) repositoryIndex(x *exchange, _ *http.Request) error {
	m := s.model()
	entry := map[string]string{"name": m.Name, "version": m.Revision, "state": "READY"}
	if status, body := s.readiness(); status != http.StatusOK {
		entry["state"], entry["reason"] = "UNAVAILABLE", body["error"].(string)
	}
	return writeJSON(x, http.StatusOK, []map[string]string{entry})
}
