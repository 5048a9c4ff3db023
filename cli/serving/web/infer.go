package web

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"agflow/cli/serving"
)

// inferResponse is the JSON of an answer to an inference request.
type inferResponse struct {
	ModelName    string         `json:"model_name"`
	ModelVersion string         `json:"model_version"`
	ID           string         `json:"id,omitempty"`
	Outputs      []outputTensor `json:"outputs"`
}

type outputTensor struct {
	Name       string         `json:"name"`
	Datatype   string         `json:"datatype"`
	Shape      []int          `json:"shape"`
	Parameters map[string]int `json:"parameters,omitempty"`
	Data       any            `json:"data,omitempty"`
}

// infer answers an inference request.
func (s *server) infer(x *exchange, r *http.Request) error {
	timeout, err := x.ownTimeout(r)
	if err != nil {
		return err
	}
	content, err := x.body(r)
	if err != nil {
		return err
	}
	held := s.cascade.Hold()
	defer held.Release()
	m := held.Model()
	if err := checkModel(r, m); err != nil {
		return err
	}
	request, err := parseInfer(content, r.Header, m)
	if err != nil {
		return err
	}
	content = nil // the images alone wait
	x.id = request.id
	if request.timeout > 0 {
		timeout = min(timeout, request.timeout)
	}
	ctx, cancel := x.deadline(r, timeout)
	defer cancel()
	answers, err := held.Answer(ctx, request.images, request.n)
	if err != nil {
		return err
	}
	x.answered(answers)
	return sendAnswers(x, r, request, answers, m)
}

// sendAnswers writes the outputs that were asked for, those in binary behind the JSON.
func sendAnswers(
	x *exchange, r *http.Request, request inferRequest, answers []serving.Answer, m serving.Model,
) error {
	response := inferResponse{
		ModelName: m.Name, ModelVersion: m.Revision, ID: request.id, Outputs: []outputTensor{},
	}
	var binary []byte
	isBinary := false
	for _, w := range request.outputs {
		datatype, shape, values := w.of(answers, m)
		tensor := outputTensor{Name: w.name, Datatype: datatype, Shape: shape}
		if w.binary {
			before := len(binary)
			binary = appendBinary(binary, values)
			tensor.Parameters = map[string]int{"binary_data_size": len(binary) - before}
			isBinary = true
		} else {
			tensor.Data = values
		}
		response.Outputs = append(response.Outputs, tensor)
	}
	text, err := json.Marshal(response)
	if err != nil {
		return err
	}
	header := x.Header()
	header.Set("Content-Type", "application/json")
	if isBinary {
		header.Set("Content-Type", "application/octet-stream")
		header.Set(headerLength, strconv.Itoa(len(text)))
	}
	return compressed(x, r, append(text, binary...))
}

// appendBinary appends values as the binary tensor extension has them: little-endian, and texts
// behind their lengths.
func appendBinary(b []byte, values any) []byte {
	switch values := values.(type) {
	case []float32:
		for _, v := range values {
			b = little.AppendUint32(b, math.Float32bits(v))
		}
	case []int64:
		for _, v := range values {
			b = little.AppendUint64(b, uint64(v))
		}
	case []string:
		for _, v := range values {
			b = append(little.AppendUint32(b, uint32(len(v))), v...)
		}
	}
	return b
}

// compressed sends a body in the encoding that the client accepts, where that saves a packet.
func compressed(x *exchange, r *http.Request, content []byte) error {
	const packet = 1400
	encoding := accepted(r.Header.Get("Accept-Encoding"))
	if encoding != "" && len(content) > packet {
		var b bytes.Buffer
		w := compressors[encoding](&b)
		if _, err := w.Write(content); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		content = b.Bytes()
		x.Header().Set("Content-Encoding", encoding)
	}
	x.Header().Set("Vary", "Accept-Encoding")
	x.Header().Set("Content-Length", strconv.Itoa(len(content)))
	x.Write(content)
	return nil
}
