package web

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// inferAnswer is the JSON of an answer to an inference request.
type inferAnswer struct {
	ModelName    string `json:"model_name"`
	ModelVersion string `json:"model_version"`
	ID           string
	Outputs      []struct {
		Name, Datatype string
		Shape          []int
		Parameters     struct {
			Size *int `json:"binary_data_size"`
		}
		Data json.RawMessage
	}
}

const inferPath = "/v2/models/linear/infer"

// outputOf reads an output's values, from the JSON or the bytes behind it.
func outputOf[T any](t *testing.T, a answer, name string) (values []T, shape []int) {
	t.Helper()
	text, behind := a.body, []byte(nil)
	if length, err := strconv.Atoi(a.Header.Get(headerLength)); err == nil {
		text, behind = a.body[:length], a.body[length:]
	}
	var read inferAnswer
	if err := json.Unmarshal(text, &read); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("got %d %.300s: %v", a.StatusCode, text, err)
	}
	for _, o := range read.Outputs {
		own := behind
		if o.Parameters.Size != nil {
			own, behind = behind[:*o.Parameters.Size], behind[*o.Parameters.Size:]
		}
		switch {
		case o.Name != name:
			continue
		case o.Parameters.Size == nil:
			if err := json.Unmarshal(o.Data, &values); err != nil {
				t.Fatal(err)
			}
		case o.Datatype == bytesType:
			for len(own) > 0 {
				length := binary.LittleEndian.Uint32(own)
				values = append(values, any(string(own[4:4+length])).(T))
				own = own[4+length:]
			}
		default:
			values = make([]T, len(own)/map[string]int{fp32: 4, int64Type: 8}[o.Datatype])
			if err := binary.Read(bytes.NewReader(own), binary.LittleEndian, values); err != nil {
				t.Fatal(err)
			}
		}
		return values, o.Shape
	}
	t.Fatalf("no output %q in %.300s", name, text)
	return nil, nil
}

// isAnswer demands all outputs of an answer to images, bit by bit.
func (s *site) isAnswer(t *testing.T, a answer, images []float32) {
	t.Helper()
	want := s.experts.expected(t, images)
	n := len(want)
	got, shape := outputOf[float32](t, a, "logits")
	if !slices.Equal(shape, []int{n, classes}) {
		t.Errorf("logits are of shape %v", shape)
	}
	class, shape := outputOf[int64](t, a, "class")
	if !slices.Equal(shape, []int{n}) {
		t.Errorf("class is of shape %v", shape)
	}
	expert, _ := outputOf[string](t, a, "expert")
	prior, _ := outputOf[float32](t, a, "prior")
	probability, _ := outputOf[float32](t, a, "probability")
	cost, _ := outputOf[float32](t, a, "cost")
	id, _ := outputOf[string](t, a, "id")
	for i, w := range want {
		if !slices.Equal(got[i*classes:(i+1)*classes], w.Logits) || class[i] != int64(w.Class) ||
			expert[i] != w.Expert || prior[i] != w.Prior {
			t.Fatalf("image %d: got %v %d %s %v, want %+v",
				i, got[i*classes:(i+1)*classes], class[i], expert[i], prior[i], w)
		}
		if p := softmax(w.Logits, w.Class); math.Abs(float64(probability[i])-p) > 1e-6 {
			t.Errorf("image %d: probability %v, want %v", i, probability[i], p)
		}
		if isLight := w.Expert == "light"; isLight && cost[i] != 0.25 && cost[i] != 1.25 ||
			!isLight && cost[i] != 1.25 {
			t.Errorf("image %d of %s: cost %v", i, w.Expert, cost[i])
		}
	}
	if slices.Sort(id); len(slices.Compact(id)) != n || slices.Contains(id, "") {
		t.Errorf("ids %v", id)
	}
}

func softmax(logits []float32, class int) float64 {
	total := 0.0
	for _, v := range logits {
		total += math.Exp(float64(v - logits[class]))
	}
	return 1 / total
}

// encodedAs gives images as the bytes of a datatype.
func encodedAs(datatype string, images []float32) (b []byte) {
	for _, v := range images {
		switch bits := math.Float32bits(v); datatype {
		case fp32:
			b = binary.LittleEndian.AppendUint32(b, bits)
		case fp64:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(v)))
		case bf16:
			b = binary.LittleEndian.AppendUint16(b, uint16(bits>>16))
		case fp16: // of numbers that are a sum of few powers of two
			half := uint16(bits>>16) & 0x8000
			if v != 0 {
				half |= uint16(int(bits>>23&0xff)-112)<<10 | uint16(bits>>13&0x3ff)
			}
			b = binary.LittleEndian.AppendUint16(b, half)
		}
	}
	return b
}

// binaryBody is a request with binary images, and the length of its JSON.
func binaryBody(datatype string, images []float32, more string) (string, string) {
	b := encodedAs(datatype, images)
	text := fmt.Sprintf(`{"inputs":[{"name":"images","datatype":%q,"shape":[%d,%d,%d,%d],`+
		`"parameters":{"binary_data_size":%d}}]%s}`,
		datatype, len(images)/size, channels, side, side, len(b), more)
	return text + string(b), headerLength + ": " + strconv.Itoa(len(text))
}

func TestInferInJSON(t *testing.T) {
	s := newSite(t, nil)
	images := imagesOf(5, 2)
	a := s.post(inferPath, inferBody(images, `,"id":"mine"`))
	s.isAnswer(t, a, images)
	var read inferAnswer
	a.read(t, &read)
	if read.ID != "mine" || read.ModelName != "linear" || read.ModelVersion != "5f3a" {
		t.Errorf("got %+v", read)
	}
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("got %q", got)
	}
	nested := nestedJSON(images)
	for _, body := range []string{
		strings.Replace(inferBody(images, ""), flatJSON(images), nested, 1),
		strings.Replace(inferBody(images, ""), "FP32", "FP64", 1),
		"\n{\"id\" :\t\"a \\\"data\\\": [\", \"outputs\":\t" + allOutputs + ", \"model_name\" : " +
			"\"linear\",\"inputs\":[ {\"data\" : " + strings.ReplaceAll(nested, ",", " ,\n ") +
			",\"shape\":[5,3,8,8],\"name\":\"images\",\"datatype\":\"FP32\"} ] } ",
	} {
		s.isAnswer(t, s.post("/v2/models/linear/versions/5f3a/infer", body), images)
	}
}

const allOutputs = `[{"name":"id"},{"name":"cost"},{"name":"prior"},{"name":"expert"},` +
	`{"name":"probability"},{"name":"class"},{"name":"logits"}]`

func flatJSON(images []float32) string {
	text, _ := json.Marshal(images)
	return string(text)
}

func nestedJSON(images []float32) string {
	nested := make([][channels][side][side]float32, len(images)/size)
	for i := range images {
		nested[i/size][i/side/side%channels][i/side%side][i%side] = images[i]
	}
	text, _ := json.Marshal(nested)
	return string(text)
}

func TestInferInBinary(t *testing.T) {
	s := newSite(t, nil)
	for _, datatype := range []string{fp32, fp64, fp16, bf16} {
		images := imagesOf(7, 3)
		if datatype == bf16 { // whose mantissa is shorter
			for i, v := range images {
				images[i] = math.Float32frombits(math.Float32bits(v) &^ 0xffff)
			}
		}
		body, header := binaryBody(datatype, images, `,"parameters":{"binary_data_output":true}`)
		a := s.post(inferPath, body, header)
		s.isAnswer(t, a, images)
		if got := a.Header.Get("Content-Type"); got != "application/octet-stream" {
			t.Errorf("got %q", got)
		}
		body, header = binaryBody(datatype, images, "")
		if a := s.post(inferPath, body, header); a.Header.Get(headerLength) != "" {
			t.Error("binary outputs that nobody asked for")
		} else {
			s.isAnswer(t, a, images)
		}
	}
	images := imagesOf(2, 4) // a raw binary request
	a := s.post(inferPath, string(encodedAs(fp32, images)), headerLength+": 0")
	s.isAnswer(t, a, images)
}

func TestOnlyTheOutputsThatWereAskedFor(t *testing.T) {
	s := newSite(t, nil)
	images := imagesOf(3, 5)
	body, header := binaryBody(fp32, images, `,"parameters":{"binary_data_output":true},"outputs":`+
		`[{"name":"class","parameters":{"binary_data":false}},{"name":"logits"},`+
		`{"name":"expert","parameters":{"binary_data":true}}]`)
	a := s.post(inferPath, body, header)
	length, _ := strconv.Atoi(a.Header.Get(headerLength))
	var read inferAnswer
	if err := json.Unmarshal(a.body[:length], &read); err != nil {
		t.Fatal(err)
	}
	if len(read.Outputs) != 3 || read.Outputs[0].Name != "class" ||
		read.Outputs[0].Parameters.Size != nil || read.Outputs[1].Data != nil {
		t.Fatalf("got %s", a.body[:length])
	}
	want := s.experts.expected(t, images)
	class, _ := outputOf[int64](t, a, "class")
	expert, _ := outputOf[string](t, a, "expert")
	got, _ := outputOf[float32](t, a, "logits")
	for i, w := range want {
		if class[i] != int64(w.Class) || expert[i] != w.Expert || got[i*classes] != w.Logits[0] {
			t.Errorf("image %d: got %d %s", i, class[i], expert[i])
		}
	}
}

func TestClassificationOutputs(t *testing.T) {
	s := newSite(t, nil)
	images := imagesOf(2, 6)
	a := s.post(inferPath, inferBody(images,
		`,"outputs":[{"name":"logits","parameters":{"classification":2}}]`))
	got, shape := outputOf[string](t, a, "logits")
	if !slices.Equal(shape, []int{2, 2}) {
		t.Errorf("got shape %v", shape)
	}
	names := newLinear().Model().ClassNames
	for i, w := range s.experts.expected(t, images) {
		first := fmt.Sprintf("%f:%d:%s", w.Logits[w.Class], w.Class, names[w.Class])
		if got[2*i] != first {
			t.Errorf("got %q, want %q", got[2*i], first)
		}
	}
}

func TestCompression(t *testing.T) {
	s := newSite(t, nil)
	images := imagesOf(64, 8)
	body, header := binaryBody(fp32, images, "")
	for encoding, compress := range map[string]func(io.Writer) io.WriteCloser{
		"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
	} {
		var b bytes.Buffer
		w := compress(&b)
		w.Write([]byte(body))
		w.Close()
		a := s.do("POST", inferPath, &b, header, "Content-Encoding: "+encoding,
			"Accept-Encoding: "+encoding)
		if got := a.Header.Get("Content-Encoding"); got != encoding {
			t.Fatalf("got encoding %q, want %q", got, encoding)
		}
		content, err := decompressed(encoding, a.body, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		a.body = content
		s.isAnswer(t, a, images)
	}
	for header, want := range map[string]string{
		"": "", "br": "", "br, deflate;q=0.5": "deflate", "gzip;q=0, deflate": "deflate",
		"identity": "", "GZIP": "gzip",
	} {
		if got := accepted(header); got != want {
			t.Errorf("%q: got %q, want %q", header, got, want)
		}
	}
}

func TestInvalidInferRequests(t *testing.T) {
	s := newSite(t, nil)
	images := imagesOf(1, 9)
	good := inferBody(images, "")
	whole := flatJSON(images)
	asked := func(name, parameter string) string {
		return fmt.Sprintf(`,"outputs":[{"name":%q,"parameters":{%s}}]`, name, parameter)
	}
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, c := range map[string]struct{ body, words string }{
		"no JSON":       {"{", "the request's JSON can't be read"},
		"nothing":       {"", "can't be read"},
		"no input":      {`{"inputs":[]}`, `there are 0 inputs, expected one, "images"`},
		"no inputs":     {`{}`, "there are 0 inputs"},
		"unknown key":   {inferBody(images, `,"batch":3`), "batch is not known here"},
		"key twice":     {inferBody(images, `,"id":"a","id":"b"`), "id comes twice"},
		"another input": {with(`"images"`, `"image"`), `the input "image" is unknown`},
		"another model": {inferBody(images, `,"model_name":"x"`), `model_name is "x"`},
		"unknown output": {inferBody(images, `,"outputs":[{"name":"prob"}]`),
			`"prob" is unknown`},
		"output twice": {inferBody(images, `,"outputs":[{"name":"id"},{"name":"id"}]`),
			"twice"},
		"shared memory": {with(`"data"`, `"parameters":{"shared_memory_region":"r"},"data"`),
			`"shared_memory_region", which is not offered`},
		"sequence": {inferBody(images, `,"parameters":{"sequence_id":3}`), `"sequence_id"`},
		"binary_data": {inferBody(images, asked("id", `"binary_data":1`)),
			"binary_data is 1, expected true or false"},
		"many classes": {inferBody(images, asked("logits", `"classification":6`)),
			"there are 5 classes"},
		"top of a class": {inferBody(images, asked("class", `"classification":1`)),
			`"classification"`},
		"timeout": {inferBody(images, `,"parameters":{"timeout":0}`),
			"microseconds above 0"},
		"pixels":       {with("FP32", "UINT8"), `datatype "UINT8", expected FP32, FP64`},
		"half in JSON": {with("FP32", "FP16"), "JSON has no numbers of FP16"},
		"no images": {with("[1,3", "[0,3"),
			"shape [0,3,8,8], expected [n, 3, 8, 8] with n from 1"},
		"negative":         {with("[1,3", "[-1,3"), "expected [n, 3, 8, 8]"},
		"another shape":    {with("[1,3,8,8]", "[1,3,8,9]"), "expected [n, 3, 8, 8]"},
		"three dimensions": {with("[1,3,8,8]", "[3,8,8]"), "expected [n, 3, 8, 8]"},
		"huge":             {with("[1,3", "[1000000000000000000,3"), "data ends before its shape"},
		"beyond int64":     {with("[1,3", "[10000000000000000000,3"), "expected a whole number"},
		"too few":          {with("[1,3", "[2,3"), "expected 384 entries"},
		"too many":         {with(whole, whole[:len(whole)-1]+",1]"), "] after 192 entries"},
		"no data":          {with(`,"data":`+whole, ""), "has no data"},
		"empty data":       {with(whole, "[]"), "data ends before"},
		"a text as data":   {with(whole, `"x"`), "data is not an array"},
		"zero as data":     {with(`"data":`+whole, `"d\u0061ta":0`), "has no data"},
		"texts in data":    {with(whole, `["1"]`), "expected finite numbers alone"},
		"null in data":     {with(whole, "[null,"+whole[1:]), "expected finite numbers alone"},
		"NaN":              {with(whole, "[NaN,"+whole[1:]), `data holds "NaN`},
		"overflow": {with(whole, "[1e39,"+strings.SplitN(whole, ",", 2)[1]),
			"image 0 (from 0) has a value that is not a finite"},
		"leading zero": {with(whole, "[01,"+strings.SplitN(whole, ",", 2)[1]),
			"expected a number"},
		"broken nesting":   {with(whole, "[["+whole[1:]), "expected finite numbers alone"},
		"nested otherwise": {with(whole, "["+whole+"]"), "expected [, as the shape says"},
		"data twice":       {with(`"data"`, `"data":[1],"data"`), "data comes twice"},
		"bytes behind":     {good + "xx", "can't be read"},
	} {
		t.Run(name, func(t *testing.T) {
			s.post(inferPath, c.body).refused(t, http.StatusBadRequest, c.words)
		})
	}
	a := s.post(inferPath, good)
	s.isAnswer(t, a, images) // and the server goes on
}

func TestInvalidBinaryRequests(t *testing.T) {
	s := newSite(t, nil)
	images := imagesOf(2, 9)
	body, length := binaryBody(fp32, images, "")
	infinite := slices.Clone(images)
	infinite[size+5] = float32(math.Inf(1))
	infiniteBody, infiniteLength := binaryBody(fp32, infinite, "")
	for name, c := range map[string]struct{ body, header, words string }{
		"too short":      {body[:len(body)-1], length, "1535 bytes follow the JSON"},
		"too long":       {body + "x", length, "1537 bytes follow the JSON"},
		"no header":      {body, "X: y", "can't be read"},
		"header too big": {body, headerLength + ": 1000000000000000000", "1000000000000000000"},
		"no number":      {body, headerLength + ": -1", `is "-1", expected a number of bytes`},
		"another size": {strings.Replace(body, "1536", "1535", 1), length,
			"binary_data_size is 1535 and 1536 bytes follow the JSON, expected 2 times 768"},
		"huge": {strings.Replace(body, "[2,3", "[1000000000000000000,3", 1),
			headerLength + ": " + strconv.Itoa(strings.IndexByte(body, '}')+4+18),
			"binary_data_size is 1536"},
		"negative": {strings.Replace(body, "1536", "-153", 1), length, "a whole number from 0"},
		"infinite": {infiniteBody, infiniteLength, "image 1 (from 0) has a value that is not a " +
			"finite float32, at element 5"},
		"raw of another size": {body[:size*4+1], headerLength + ": 0", "a multiple of 768"},
		"raw and empty":       {"", headerLength + ": 0", "0 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s.post(inferPath, c.body, c.header).refused(t, http.StatusBadRequest, c.words)
		})
	}
	for encoding, status := range map[string]int{"gzip": 400, "br": 415, "gzip, gzip": 415} {
		s.post(inferPath, body, length, "Content-Encoding: "+encoding).
			refused(t, status, encoding)
	}
}
