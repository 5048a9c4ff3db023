package web

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/jpeg"
	"math"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"agflow/cli/serving"
)

// form is a form of files or texts, and its content type.
func form(t *testing.T, fields ...[]byte) (body []byte, header string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i, field := range fields {
		part, err := w.CreateFormFile(fmt.Sprintf("field%d", i), "picture.png")
		if err != nil {
			t.Fatal(err)
		}
		part.Write(field)
	}
	w.Close()
	return b.Bytes(), "Content-Type: " + w.FormDataContentType()
}

func TestClassify(t *testing.T) {
	s := newSite(t, nil)
	for seed := range uint64(4) {
		encoded := picture(seed, 40, 30)
		if seed == 3 {
			decoded, _, _ := image.Decode(bytes.NewReader(encoded))
			var b bytes.Buffer
			if err := jpeg.Encode(&b, decoded, nil); err != nil {
				t.Fatal(err)
			}
			encoded = b.Bytes()
		}
		prepared, err := s.experts.Prepare(encoded)
		if err != nil {
			t.Fatal(err)
		}
		want := s.experts.expected(t, prepared)[0]
		name := s.experts.Model().ClassNames[want.Class]
		asForm, header := form(t, encoded)
		for _, a := range []answer{
			s.do("POST", "/v1/classify", bytes.NewReader(encoded)),
			s.do("POST", "/v1/classify?top=3", bytes.NewReader(encoded), "Content-Type: image/x"),
			s.do("POST", "/v1/classify?top=5", bytes.NewReader(asForm), header),
		} {
			var got classification
			a.read(t, &got)
			if got.Class != want.Class || got.Name != name || got.Expert != want.Expert ||
				got.Prior != want.Prior || got.ID == "" || got.Model != "linear" ||
				got.Revision != "5f3a" ||
				math.Abs(got.Probability-softmax(want.Logits, want.Class)) > 1e-6 {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			for i, place := range got.Top {
				if class := greatest(want.Logits, 5)[i]; place.Class != class ||
					place.Name != s.experts.Model().ClassNames[class] ||
					math.Abs(place.Probability-softmax(want.Logits, class)) > 1e-6 {
					t.Errorf("place %d: got %+v", i, place)
				}
			}
			asked := map[string]int{"": 0, "top=3": 3, "top=5": 5}[a.Request.URL.RawQuery]
			if len(got.Top) != asked {
				t.Errorf("got %d places, want %d", len(got.Top), asked)
			}
		}
	}
}

// hugePNG is the header of a PNG of so many pixels.
func hugePNG(width, height uint32) []byte {
	header := []byte("IHDR")
	header = binary.BigEndian.AppendUint32(header, width)
	header = binary.BigEndian.AppendUint32(header, height)
	header = append(header, 8, 2, 0, 0, 0)
	b := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d")
	b = append(b, header...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(header))
}

// webP is an image of 1 x 1 pixels.
const webP = "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAgA0JaQAA3AA/vuUAAA="

func TestPixels(t *testing.T) {
	small, err := base64.StdEncoding.DecodeString(webP)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		encoded []byte
		limit   int64
		refused bool
	}{
		{hugePNG(100_000, 100_000), 50_000_000, true},
		{hugePNG(math.MaxInt32, 1), 50_000_000, true},
		{hugePNG(10_000, 5_000), 50_000_000, false},
		{hugePNG(10_000, 5_001), 50_000_000, true},
		{picture(1, 20, 10), 200, false},
		{picture(1, 20, 10), 199, true},
		{small, 1, false},
		{small, 0, true},
		{[]byte("what Go does not know"), 1, false},
	} {
		if err := checkPixels(c.encoded, c.limit); (err != nil) != c.refused {
			t.Errorf("%.30q, limit %d: got %v", c.encoded, c.limit, err)
		}
	}
	s := newSite(t, nil)
	s.do("POST", "/v1/classify", bytes.NewReader(hugePNG(100_000, 100_000))).refused(t,
		http.StatusRequestEntityTooLarge, "the png image is 100000 x 100000, expected at most")
}

func TestInvalidImages(t *testing.T) {
	s := newSite(t, nil)
	encoded := picture(1, 8, 8)
	for name, c := range map[string]struct {
		query, header string
		body          []byte
		words         string
	}{
		"empty":       {"", "", nil, "the body is empty"},
		"no image":    {"", "", []byte("hello"), "the image can't be decoded"},
		"half":        {"", "", encoded[:len(encoded)/2], "the image can't be decoded"},
		"top 0":       {"?top=0", "", encoded, "a number of classes from 1 to 5"},
		"top 6":       {"?top=6", "", encoded, `top is "6"`},
		"top all":     {"?top=all", "", encoded, `top is "all"`},
		"unknown":     {"?tops=1", "", encoded, `the query has "tops"`},
		"bad query":   {"?top=%zz", "", encoded, "the query can't be read"},
		"no boundary": {"", "Content-Type: multipart/form-data", encoded, "can't be read"},
		"no form":     {"", "Content-Type: multipart/form-data; boundary=x", encoded, "form"},
		"half a form": {"", "Content-Type: multipart/form-data; boundary=x",
			[]byte("--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nab"), "can't be read"},
	} {
		t.Run(name, func(t *testing.T) {
			s.do("POST", "/v1/classify"+c.query, bytes.NewReader(c.body), c.header).
				refused(t, http.StatusBadRequest, c.words)
		})
	}
	for words, fields := range map[string][][]byte{
		"no field": {}, "several fields": {encoded, encoded}, `"field0" is empty`: {nil},
	} {
		body, header := form(t, fields...)
		s.do("POST", "/v1/classify", bytes.NewReader(body), header).
			refused(t, http.StatusBadRequest, words)
	}
}

func TestLabels(t *testing.T) {
	s := newSite(t, func(_ *Options, _ *serving.Options, l *linear) { l.audits = 1 })
	images := imagesOf(3, 1)
	ids, _ := outputOf[string](t, s.post(inferPath, inferBody(images, "")), "id")
	label := func(id string, class int) string {
		return fmt.Sprintf(`{"id":%q,"label":%d}`, id, class)
	}
	var got struct {
		Accepted int
		Failed   []unlabelled
	}
	s.post("/v1/labels", label(ids[0], 4)).read(t, &got)
	if got.Accepted != 1 || len(got.Failed) != 0 {
		t.Errorf("got %+v", got)
	}
	s.post("/v1/labels", " ["+label(ids[0], 4)+","+label(ids[1], 0)+","+label("x", 1)+"]").
		read(t, &got)
	if got.Accepted != 1 || len(got.Failed) != 2 || got.Failed[0].ID != ids[0] ||
		!strings.Contains(got.Failed[1].Error, "awaits its label") {
		t.Errorf("got %+v", got)
	}
	for body, words := range map[string]string{
		label(ids[2], 5):  "expected a class from 0 to 4",
		label(ids[2], -1): "expected a class from 0 to 4",
		"[" + label(ids[2], 1) + "," + label("x", 9) + "]": `the label of "x" is 9`,
		"[]":                          "there are no labels",
		"":                            "can't be read",
		`{"id":"a"}`:                  "label is missing",
		`{"id":"a","label":"b"}`:      "label is \"b\", expected a whole number",
		`{"id":"a","label":1,"x":2}`:  "x is not known here",
		`[{"id":"a","label":1},null]`: "null",
	} {
		s.post("/v1/labels", body).refused(t, http.StatusBadRequest, words)
	}
	s.post("/v1/labels", label("x", 1)).refused(t, http.StatusNotFound, "awaits its label")
	s.post("/v1/labels", "["+label("x", 1)+"]").refused(t, http.StatusNotFound, "awaits its label")
	report := s.report()
	if report.Labelled != 2 || report.Awaited != 1 {
		t.Errorf("the monitor has %d labels and awaits %d", report.Labelled, report.Awaited)
	}
	if got := s.scraped(t, "agflow_monitor_labelled_images"); got != 2 {
		t.Errorf("the metrics have %v labels", got)
	}
	if slices.Contains(ids, "x") {
		t.Fatal("an id that the test takes for unknown")
	}
}
