package web

import (
	"encoding/json"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"agflow/cli/serving"
	"agflow/core/fuzzing"
)

// tiny is a model of images of two numbers.
var tiny = serving.Model{Name: "tiny", Revision: "1", Channels: 1, Height: 1, Width: 2, Classes: 3}

// FuzzInfer reads any body and header: a refusal, or images of the shape that the body has.
func FuzzInfer(f *testing.F) {
	fuzzing.Begin(f)
	request := `{"id":"a","inputs":[{"name":"images","shape":[1,1,1,2],"datatype":"FP32"`
	f.Add([]byte(request+`,"data":[1,-2.5e3]}]}`), "")
	f.Add([]byte(request+`,"data":[[[[0.1,2]]]]}],"outputs":[{"name":"id"}]}`), "")
	f.Add([]byte(request+`,"parameters":{"binary_data_size":8}}]}12345678`), "107")
	f.Add([]byte("12345678"), "0")
	f.Add([]byte(`{"inputs":[{"d\u0061ta":0}]}`), "")
	f.Fuzz(func(t *testing.T, body []byte, length string) {
		header := http.Header{}
		if length != "" {
			header.Set(headerLength, length)
		}
		before := slices.Clone(body)
		r, err := parseInfer(body, header, tiny)
		if !slices.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			if refusal := refusalOf(err); refusal.status >= 500 {
				t.Fatalf("status %d: %v", refusal.status, refusal)
			}
			return
		}
		if r.n < 1 || len(r.images) != 2*r.n || len(r.outputs) > 7 || 2*len(r.images) > len(body) {
			t.Fatalf("%d images of %d numbers from %d bytes", r.n, len(r.images), len(body))
		}
		for _, v := range r.images {
			if v-v != 0 {
				t.Fatalf("%v got through", v)
			}
		}
	})
}

// FuzzNumbers reads any JSON array as encoding/json does.
func FuzzNumbers(f *testing.F) {
	fuzzing.Begin(f)
	for _, text := range []string{
		"[1,2]", "[ [[[ -0.5e+3 ,1E-2]]]]\n", "[01,2]", "[1.,2]", "[+1,2]", "[1,2,]", "[[[[1,2]]]",
		"[1e999,0]", "[[[[1],[2]]]]", "[-,1]", "[.5,1]", "[1 2]", "[0x1,2]", "[1e39,-1e-60]",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		left, numbers, err := liftNumbers([]byte(`{"data":` + text + `}`))
		if err != nil || string(left) != `{"data":0}` {
			return
		}
		got, err := parseNumbers(numbers, fp32, []int64{1, 1, 1, 2})
		var flat []json.Number
		var nested [][][][]json.Number
		want := json.Unmarshal(numbers, &flat)
		if want != nil {
			if want = json.Unmarshal(numbers, &nested); want == nil && len(nested) == 1 &&
				len(nested[0]) == 1 && len(nested[0][0]) == 1 {
				flat = nested[0][0][0]
			}
		}
		isPair := want == nil && len(flat) == 2
		for _, number := range flat {
			if v, err := strconv.ParseFloat(string(number), 32); err != nil || math.IsInf(v, 0) {
				isPair = false
			}
		}
		if (err == nil) != isPair {
			t.Fatalf("%s: got %v, %v; encoding/json reads %v, %v", text, got, err, flat, want)
		}
		for i := range got {
			if v, _ := strconv.ParseFloat(string(flat[i]), 32); float32(v) != got[i] {
				t.Fatalf("%s: got %v, want %v", text, got[i], v)
			}
		}
	})
}

// FuzzForm reads any body as a form: a refusal, or bytes of it.
func FuzzForm(f *testing.F) {
	fuzzing.Begin(f)
	f.Add("multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; "+
		"name=\"a\"\r\n\r\nimage\r\n--x--\r\n"))
	f.Add("multipart/form-data; boundary=x", []byte("--x--\r\n"))
	f.Add("multipart/form-data", []byte("--x"))
	f.Add("image/png", []byte("image"))
	f.Add("; ; =", []byte("image"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		image, err := encodedImage(kind, body)
		if err == nil && (len(image) == 0 || len(image) > len(body)) {
			t.Fatalf("%d bytes from %d", len(image), len(body))
		}
		if err != nil && refusalOf(err).status >= 500 {
			t.Fatal(err)
		}
		if checkPixels(body, 1<<40) == nil && checkPixels(body, 1) != nil && len(body) < 10 {
			t.Fatal("pixels of nothing")
		}
	})
}

// FuzzLabels reads any body as labels: a refusal, or what encoding/json reads.
func FuzzLabels(f *testing.F) {
	fuzzing.Begin(f)
	f.Add([]byte(`{"id":"a","label":1}`))
	f.Add([]byte(` [{"id":"a","label":1},{"label":0,"id":"b"}]`))
	f.Add([]byte(`[{"id":"a","Label":1}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseLabels(body, 3)
		if err != nil {
			if refusalOf(err).status >= 500 {
				t.Fatal(err)
			}
			return
		}
		text := strings.TrimSpace(string(body))
		if text[0] == '{' {
			text = "[" + text + "]"
		}
		var want []label
		if err := json.Unmarshal([]byte(text), &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v, %v", got, want, err)
		}
	})
}
