package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"agflow/bridge/tables"
	"agflow/core/routing"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// asProgram makes this test binary the agflow program, for what can only be seen from outside a
// process.
const asProgram = "AGFLOW_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func program(environment []string, arguments ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], arguments...)
	c.Env = append(append(os.Environ(), asProgram+"=1"), environment...)
	return c
}

// finish runs a command and returns its output and status.
func finish(t *testing.T, c *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, complaint strings.Builder
	c.Stdout, c.Stderr = &out, &complaint
	guard := time.AfterFunc(time.Minute, func() {
		if c.Process != nil {
			_ = c.Process.Kill()
		}
	})
	defer guard.Stop()
	_ = c.Run()
	return out.String(), complaint.String(), c.ProcessState.ExitCode()
}

// fill writes files into a new folder.
func fill(t *testing.T, files map[string]string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for name, content := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// agflow runs the program in this process.
func agflow(arguments ...string) (stdout, stderr string, status int) {
	var out, complaint bytes.Buffer
	status = run(append([]string{"agflow"}, arguments...), &out, &complaint)
	return out.String(), complaint.String(), status
}

// must runs a command that has to succeed and returns what it printed.
func must(t *testing.T, arguments ...string) string {
	t.Helper()
	out, complaint, status := agflow(arguments...)
	if status != exitOK {
		t.Fatalf("agflow %s: status %d: %s", strings.Join(arguments, " "), status, complaint)
	}
	return out
}

// decode runs a command with --json and decodes what it printed.
func decode[T any](t *testing.T, arguments ...string) (found T) {
	t.Helper()
	arguments = append([]string{"--json"}, arguments...)
	if err := json.Unmarshal([]byte(must(t, arguments...)), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

// contains reports each text that is missing.
func contains(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not in\n%s", text, out)
		}
	}
}

// refusal is how a command ends that refuses its arguments.
type refusal struct {
	status int
	says   string
}

// refuses runs a command with each of the arguments, which it must refuse in one sentence.
func refuses(t *testing.T, command string, want map[string]refusal) {
	t.Helper()
	for arguments, want := range want {
		line := strings.TrimSpace(command + " " + arguments)
		_, complaint, status := agflow(strings.Fields(line)...)
		isSentence := strings.HasPrefix(complaint, "agflow: ") &&
			strings.Count(complaint, "\n") == 1
		if status != want.status || !strings.Contains(complaint, want.says) || !isSentence {
			t.Errorf("agflow %s: status %d, want %d; said %q, want %q",
				line, status, want.status, complaint, want.says)
		}
	}
}

// write saves a table.
func write(t *testing.T, path string, rec arrow.Record) {
	t.Helper()
	if err := save(path, rec); err != nil {
		t.Fatal(err)
	}
}

// statisticsFile writes statistics of a small model with two layers of 4 channels. Each channel
// saves 10 MACs and 10 parameters, and the scores rise with the channels.
func statisticsFile(t *testing.T, path string, scale float32) statistics.Table {
	t.Helper()
	layer := statistics.Layer{
		Group: "mlp", Rounds: true, Units: 4, UnitWidth: 1, Parts: 1, UnitMACs: 10, UnitParams: 10,
	}
	layers := []statistics.Layer{layer, layer}
	layers[0].Name, layers[1].Name = "blocks.0.mlp", "blocks.1.mlp"
	model := statistics.Model{Name: "tiny", MACs: 100, Params: 100}
	sums, err := statistics.NewAccumulator(model, layers, 1)
	if err != nil {
		t.Fatal(err)
	}
	for layer := range layers {
		y, err := tensor.NewView([]float32{scale, 2 * scale, 3 * scale, 4 * scale}, 1, 4)
		if err != nil {
			t.Fatal(err)
		}
		if err := sums.Add(layer, 1, y, y); err != nil {
			t.Fatal(err)
		}
	}
	table := sums.Table()
	write(t, path, tables.StatisticsToRecord(memory.DefaultAllocator, table))
	return table
}

// predictionsFile writes n predictions of a light expert that is correct where it is confident.
func predictionsFile(t *testing.T, path string, n int) tables.Predictions {
	t.Helper()
	p := tables.Predictions{
		Temperature: 1, Cost: routing.Cost{Light: 30, Heavy: 100, Unit: routing.MACs},
		Priors: []routing.Prior{{Name: "max_probability"}, {Name: "agreement"}},
	}
	for i := range n {
		light, prior := int64(0), float32(0.99)
		if i%4 == 0 {
			light, prior = 1, 0.3
		}
		p.Label, p.Heavy = append(p.Label, 0), append(p.Heavy, 0)
		p.Light, p.Priors[0].Values = append(p.Light, light), append(p.Priors[0].Values, prior)
		p.Priors[1].Values = append(p.Priors[1].Values, 0.5)
	}
	write(t, path, tables.PredictionsToRecord(memory.DefaultAllocator, p))
	return p
}

// logitsFile writes logits of two classes.
func logitsFile(t *testing.T, path string, values ...float32) {
	t.Helper()
	list := array.NewFixedSizeListBuilder(memory.DefaultAllocator, 2, arrow.PrimitiveTypes.Float32)
	for range len(values) / 2 {
		list.Append(true)
	}
	list.ValueBuilder().(*array.Float32Builder).AppendValues(values, nil)
	column := list.NewArray()
	metadata := arrow.NewMetadata([]string{"agflow.kind"}, []string{"logits"})
	fields := []arrow.Field{{Name: "logits", Type: column.DataType()}}
	schema := arrow.NewSchema(fields, &metadata)
	write(t, path, array.NewRecord(schema, []arrow.Array{column}, int64(column.Len())))
}

func routerFile(t *testing.T, path, answers string, weight float64) {
	t.Helper()
	writeRouter(t, path, "max_probability", answers, weight)
}

// writeRouter writes a router of a prior, with threshold 0.9.
func writeRouter(t *testing.T, path, prior, answers string, weight float64) {
	t.Helper()
	ledger, err := routing.NewLedger(routing.Cost{Light: 30, Heavy: 100, Unit: routing.MACs}, 4, 2)
	if err != nil {
		t.Fatal(err)
	}
	router := routing.Router{
		Format: routing.RouterFormat, Prior: prior, Temperature: 1,
		Answers: answers, LightWeight: weight,
		Threshold: routing.Threshold{Threshold: 0.9, Verdict: routing.Pass,
			Target: routing.AccuracyTarget},
		Ledger: ledger, Priors: []routing.Quality{},
	}
	if _, err := tables.WriteRouter(path, router); err != nil {
		t.Fatal(err)
	}
}
