package web

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"agflow/cli/serving"
)

// The calls that the documentation shows, by the curl that is installed.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl on the PATH")
	}
	s := newSite(t, func(o *Options, _ *serving.Options, l *linear) {
		o.Token, l.audits = "s3cret", 1
	})
	folder := t.TempDir()
	encoded := picture(1, 40, 30)
	prepared, err := s.experts.Prepare(encoded)
	if err != nil {
		t.Fatal(err)
	}
	want := s.experts.expected(t, prepared)[0]
	tensor, _ := binaryBody(fp32, prepared, "")
	for name, content := range map[string][]byte{
		"cat.png": encoded, "request.json": []byte(inferBody(prepared, `,"id":"one"`)),
		"images.f32": []byte(tensor[strings.LastIndex(tensor, "}]}")+3:]),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(arguments ...string) []byte {
		t.Helper()
		asked := exec.Command(curl, append([]string{
			"--silent", "--show-error", "--fail-with-body", "--max-time", "20",
			"--header", "Authorization: Bearer s3cret",
		}, arguments...)...)
		asked.Dir = folder
		var output, messages bytes.Buffer
		asked.Stdout, asked.Stderr = &output, &messages
		if err := asked.Run(); err != nil {
			t.Fatalf("%v: %s%s", err, messages.String(), output.String())
		}
		return output.Bytes()
	}
	var id string
	for _, arguments := range [][]string{
		{"--data-binary", "@cat.png", s.URL + "/v1/classify"},
		{"--form", "image=@cat.png", s.URL + "/v1/classify?top=2"},
		{"--header", "Expect: 100-continue", "--upload-file", "cat.png", "--request", "POST",
			s.URL + "/v1/classify"},
	} {
		var got classification
		if err := json.Unmarshal(run(arguments...), &got); err != nil || got.Class != want.Class ||
			got.Expert != want.Expert {
			t.Errorf("%v: got %+v, %v", arguments, got, err)
		}
		id = got.ID
	}
	label, _ := json.Marshal(label{id, want.Class})
	if got := run("--data", string(label), s.URL+"/v1/labels"); !bytes.Contains(got,
		[]byte(`"accepted":1`)) {
		t.Errorf("got %s", got)
	}
	for _, arguments := range [][]string{
		{"--data", "@request.json"},
		{"--compressed", "--data", "@request.json"},
		{"--data-binary", "@images.f32", "--header", "Inference-Header-Content-Length: 0"},
	} {
		got := run(append(arguments, s.URL+inferPath)...)
		class := answer{s.get("/v2/health/live").Response, got}
		if classes, _ := outputOf[int64](t, class, "class"); classes[0] != int64(want.Class) {
			t.Errorf("%v: got %s", arguments, got)
		}
	}
	if got := run(s.URL + "/metrics"); !bytes.Contains(got, []byte("agflow_images_total 6")) {
		t.Errorf("got %s", got)
	}
}
