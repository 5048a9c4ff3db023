package web

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"agflow/cli/serving"
	"agflow/core/strictjson"
)

// headerLength is the header that says how long the JSON before binary tensors is.
const headerLength = "Inference-Header-Content-Length"

type parameters map[string]json.RawMessage

// inferJSON is the JSON of an inference request. Model and version stand in its path; some clients
// repeat them here.
type inferJSON struct {
	ID           *string      `json:"id"`
	ModelName    *string      `json:"model_name"`
	ModelVersion *string      `json:"model_version"`
	Parameters   parameters   `json:"parameters"`
	Inputs       []inputJSON  `json:"inputs"`
	Outputs      []outputJSON `json:"outputs"`
}

// inputJSON describes the input; its numbers were taken out by [liftNumbers].
type inputJSON struct {
	Name       string     `json:"name"`
	Shape      []int64    `json:"shape"`
	Datatype   string     `json:"datatype"`
	Parameters parameters `json:"parameters"`
	Data       *int       `json:"data"`
}

type outputJSON struct {
	Name       string     `json:"name"`
	Parameters parameters `json:"parameters"`
}

// inferRequest is an inference request that was checked.
type inferRequest struct {
	id      string
	n       int
	images  []float32 // [n, C, H, W]
	outputs []wanted
	timeout time.Duration // 0 for none
}

// parseInfer reads the body of an inference request for a model. Nothing is allocated by what a
// shape says before the bytes that it needs are known to be there.
func parseInfer(content []byte, header http.Header, m serving.Model) (inferRequest, error) {
	text, binary, err := split(content, header.Get(headerLength))
	if err != nil {
		return inferRequest{}, err
	}
	if text == nil {
		return parseRaw(binary, m)
	}
	text, numbers, err := liftNumbers(text)
	if err != nil {
		return inferRequest{}, err
	}
	if err := checkJSON(text, "beside data"); err != nil {
		return inferRequest{}, err
	}
	var given inferJSON
	if err := strictjson.Over(text, &given); err != nil {
		return inferRequest{}, invalid("the request's JSON can't be read: %v", err)
	}
	if err := given.names(m); err != nil {
		return inferRequest{}, err
	}
	request := inferRequest{}
	if given.ID != nil {
		request.id = *given.ID
	}
	allBinary := false
	if err := given.Parameters.read("the request's parameters", map[string]any{
		"timeout": &request.timeout, "binary_data_output": &allBinary,
	}); err != nil {
		return inferRequest{}, err
	}
	if request.outputs, err = wantedOf(given.Outputs, allBinary, m); err != nil {
		return inferRequest{}, err
	}
	request.n, request.images, err = given.Inputs[0].read(numbers, binary, m)
	return request, err
}

// split cuts a body into its JSON and its binary tensors. Without the header all of it is JSON; at
// length 0 there is none.
func split(content []byte, length string) (text, binary []byte, err error) {
	if length == "" {
		return content, nil, nil
	}
	n, err := strconv.ParseUint(length, 10, 63)
	if err != nil || n > uint64(len(content)) {
		return nil, nil, invalid("%s is %.40q, expected a number of bytes of at most the body's %d",
			headerLength, length, len(content))
	}
	if n == 0 {
		return nil, content, nil
	}
	return content[:n], content[n:], nil
}

// parseRaw reads a body that is the input alone, in its own type (a raw binary request of Triton's
// extension).
func parseRaw(binary []byte, m serving.Model) (r inferRequest, err error) {
	size := imageSize(m) * widths[fp32]
	if len(binary) == 0 || len(binary)%size != 0 {
		return r, invalid("the body has %d bytes, expected a multiple of %d: images %s [n, %d, "+
			"%d, %d] without JSON", len(binary), size, fp32, m.Channels, m.Height, m.Width)
	}
	if r.outputs, err = wantedOf(nil, false, m); err != nil {
		return r, err
	}
	r.n = len(binary) / size
	r.images, err = floats(fp32, binary, imageSize(m))
	return r, err
}

// names refuses another model's request and other inputs.
func (j inferJSON) names(m serving.Model) error {
	if j.ModelName != nil && *j.ModelName != m.Name {
		return invalid("model_name is %.100q, but the path's model is %q", *j.ModelName, m.Name)
	}
	if v := j.ModelVersion; v != nil && *v != "" && *v != m.Revision {
		return invalid("model_version is %.100q, but %q is served", *v, m.Revision)
	}
	for _, input := range j.Inputs {
		if input.Name != inputName {
			return invalid("the input %.100q is unknown; there is one, %q", input.Name, inputName)
		}
	}
	if len(j.Inputs) != 1 {
		return invalid("there are %d inputs, expected one, %q", len(j.Inputs), inputName)
	}
	return nil
}

// read returns the images of an input, by its shape and type from the numbers of its JSON or the
// bytes behind it.
func (j inputJSON) read(numbers, binary []byte, m serving.Model) (int, []float32, error) {
	n, err := j.count(m)
	if err != nil {
		return 0, nil, err
	}
	size := int64(-1)
	if err := j.Parameters.read("the parameters of \"images\"", map[string]any{
		"binary_data_size": &size,
	}); err != nil {
		return 0, nil, err
	}
	switch isBinary := size >= 0; {
	case isBinary && j.Data != nil:
		return 0, nil, invalid("\"images\" has data and a binary_data_size; give one of them")
	case isBinary:
		if n > int64(len(binary)) || size != n*int64(imageSize(m)*widths[j.Datatype]) ||
			size != int64(len(binary)) {
			return 0, nil, invalid("binary_data_size is %d and %d bytes follow the JSON, expected "+
				"%d times %d for shape %v of %s", size, len(binary), n,
				imageSize(m)*widths[j.Datatype], j.Shape, j.Datatype)
		}
		images, err := floats(j.Datatype, binary, imageSize(m))
		return int(n), images, err
	case len(binary) > 0:
		return 0, nil, invalid("%d bytes follow the JSON, but \"images\" has no binary_data_size",
			len(binary))
	case j.Data == nil || numbers == nil:
		return 0, nil, invalid("\"images\" has no data; give them in JSON, or behind it with the " +
			"parameter binary_data_size")
	}
	images, err := parseNumbers(numbers, j.Datatype, []int64{
		n, int64(m.Channels), int64(m.Height), int64(m.Width),
	})
	return int(n), images, err
}

// count checks shape and type, and returns the number of images.
func (j inputJSON) count(m serving.Model) (int64, error) {
	if _, known := widths[j.Datatype]; !known {
		return 0, invalid("\"images\" is of datatype %.40q, expected %s, %s, %s or %s: what the "+
			"experts read, prepared as in training; /v1/classify takes encoded images",
			j.Datatype, fp32, fp64, fp16, bf16)
	}
	s := j.Shape
	if len(s) != 4 || s[0] < 1 || s[1] != int64(m.Channels) || s[2] != int64(m.Height) ||
		s[3] != int64(m.Width) {
		given, _ := json.Marshal(s)
		return 0, invalid("\"images\" is of shape %.100s, expected [n, %d, %d, %d] with n from 1",
			given, m.Channels, m.Height, m.Width)
	}
	return s[0], nil
}

// imageSize is the number of floats of an image.
func imageSize(m serving.Model) int { return m.Channels * m.Height * m.Width }

// read reads parameters over the pointers of those that are known, and refuses all others.
func (p parameters) read(of string, known map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		into, is := known[name]
		if !is {
			return invalid("%s have %.100q, which is not offered here; they may have %s", of, name,
				listed(slices.Sorted(maps.Keys(known))))
		}
		if err := readParameter(p[name], into); err != nil {
			return invalid("%s: %s is %.40s, expected %v", of, name, p[name], err)
		}
	}
	return nil
}

// readParameter reads one value; the error says what was expected.
func readParameter(raw json.RawMessage, into any) error {
	var expected string
	var err error
	switch into := into.(type) {
	case *bool:
		expected, err = "true or false", strictBool(raw, into)
	case *int64:
		expected = "a whole number from 0"
		*into, err = strconv.ParseInt(string(raw), 10, 64)
		if *into < 0 {
			err = strconv.ErrRange
		}
	case *time.Duration: // microseconds, of which a century is more than any limit
		expected = "a whole number of microseconds above 0"
		var micro int64
		micro, err = strconv.ParseInt(string(raw), 10, 64)
		if *into = time.Duration(min(micro, 1<<51)) * time.Microsecond; *into <= 0 {
			err = strconv.ErrRange
		}
	}
	if err != nil {
		return fmt.Errorf("%s", expected)
	}
	return nil
}

func strictBool(raw json.RawMessage, into *bool) error {
	switch string(raw) {
	case "true", "false":
		*into = string(raw) == "true"
		return nil
	}
	return strconv.ErrSyntax
}
