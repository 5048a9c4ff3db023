package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"agflow/bridge/arrowfile"
	"agflow/bridge/pyhost"
	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/planning"
	"agflow/core/routing"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

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

// statisticsFile writes statistics of a small model with two layers.
func statisticsFile(t *testing.T, path string, scale float32) {
	t.Helper()
	layers := []statistics.Layer{
		{Name: "blocks.0.mlp", Group: statistics.MLP, Units: 4, UnitWidth: 1, Parts: 1, UnitMACs: 10, UnitParams: 10},
		{Name: "blocks.1.mlp", Group: statistics.MLP, Units: 4, UnitWidth: 1, Parts: 1, UnitMACs: 10, UnitParams: 10},
	}
	sums, err := statistics.NewAccumulator(statistics.Model{Name: "tiny", MACs: 100, Params: 100}, layers, 1)
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
	if err := save(path, arrowfile.StatisticsToRecord(memory.DefaultAllocator, sums.Table())); err != nil {
		t.Fatal(err)
	}
}

func TestFilesFromStatisticsToPlan(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "a.arrow", 1)
	statisticsFile(t, "b.arrow", 2)
	must(t, "merge", "--output", "both.arrow", "a.arrow", "b.arrow")
	must(t, "score", "--statistics", "both.arrow", "--criterion", "agf")
	var solved struct {
		Output string
		Report struct {
			MACs   int64 `json:"macs"`
			Layers []struct{ Kept int }
		}
	}
	if err := json.Unmarshal([]byte(must(t, "plan", "--scores", "scores.arrow", "--pruning-ratio", "0.5", "--round-to", "1", "--json")), &solved); err != nil {
		t.Fatal(err)
	}
	if solved.Output != "plan.arrow" || solved.Report.MACs != 60 || solved.Report.Layers[0].Kept != 2 {
		t.Errorf("%+v", solved)
	}
	merged, err := load("both.arrow", arrowfile.KindStatistics, arrowfile.StatisticsFromRecord)
	if err != nil || merged.SumAbsYG[3] != 16+64 || merged.Rows[0] != 2 {
		t.Errorf("merged %v %v, %v", merged.SumAbsYG, merged.Rows, err)
	}
	plan, err := load("plan.arrow", arrowfile.KindPlan, arrowfile.PlanFromRecord)
	if err != nil || fmt.Sprint(plan.Keep) != "[false false true true false false true true]" {
		t.Errorf("plan keeps %v, %v", plan.Keep, err)
	}
	if out := must(t, "inspect", "plan.arrow"); !strings.Contains(out, "plan.arrow: plan, 8 rows") || !strings.Contains(out, "agflow.request") {
		t.Error(out)
	}
	if out := must(t, "verify", "plan.arrow", "scores.arrow"); out != "plan.arrow: ok\nscores.arrow: ok\n" {
		t.Error(out)
	}
}

// predictionsFile writes n predictions of a light expert that is right wherever it is sure.
func predictionsFile(t *testing.T, path string, n int) arrowfile.Predictions {
	t.Helper()
	p := arrowfile.Predictions{
		Temperature: 1, Cost: routing.Cost{Light: 30, Heavy: 100}, Priors: []routing.Prior{{Name: "max_probability"}, {Name: "agreement"}},
	}
	for i := range n {
		sure := i%4 != 0
		light, prior := int64(0), float32(0.99)
		if !sure {
			light, prior = 1, 0.3
		}
		p.Label, p.Heavy = append(p.Label, 0), append(p.Heavy, 0)
		p.Light, p.Priors[0].Values = append(p.Light, light), append(p.Priors[0].Values, prior)
		p.Priors[1].Values = append(p.Priors[1].Values, 0.5)
	}
	if err := save(path, arrowfile.PredictionsToRecord(memory.DefaultAllocator, p)); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRouteWritesRouterAndCurve(t *testing.T) {
	t.Chdir(t.TempDir())
	predictionsFile(t, "predictions.arrow", 4000)
	out := must(t, "route", "--predictions", "predictions.arrow", "--curve", "curve.arrow")
	found, err := arrowfile.ReadRouter("router.json")
	if err != nil {
		t.Fatal(err)
	}
	samples, err := load("predictions.arrow", arrowfile.KindPredictions, arrowfile.SamplesFromRecord)
	if err != nil {
		t.Fatal(err)
	}
	tolerance := 0.005
	want, err := routing.NewRouter(samples.Samples, routing.Request{Tolerance: &tolerance, Confidence: 0.95})
	if err != nil || !reflect.DeepEqual(found, want) {
		t.Errorf("got %+v; want %+v, %v", found, want, err)
	}
	if found.Prior != "max_probability" || found.Verdict != routing.Pass || found.Ledger.Escalated != 1000 || found.Ledger.Charged != 0.3+0.25 {
		t.Errorf("%+v", found)
	}
	for _, line := range []string{
		"router.json: PASS: accuracy(cascade) >= accuracy(heavy) - 0.005 with confidence 0.95, from 4000 images",
		"an image escalates when its max_probability is below 0.3", "random routing", "charged cost: gain", "agreement        0.5000",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
	if points, err := load("curve.arrow", arrowfile.KindCurve, arrowfile.CurveFromRecord); err != nil || len(points) == 0 || points[0].AccuracyInterval[1] == 0 {
		t.Error(points, err)
	}
	if left, _ := filepath.Glob(".*"); len(left) != 0 {
		t.Error("left behind:", left)
	}
}

// One limit of three is kept, the tolerance by default.
func TestRouteKeepsTheLimitAskedFor(t *testing.T) {
	t.Chdir(t.TempDir())
	predictionsFile(t, "predictions.arrow", 2000)
	for arguments, want := range map[string]string{
		"--charged 0.5":                    "router.json: PASS: charged cost <= 0.5x with confidence 0.95, from 2000 images",
		"--escalation 0":                   "no image escalates",
		"--escalation 1 --confidence 0.9":  "escalation <= 1 with confidence 0.9",
		"--prior auto":                     "an image escalates when its max_probability is below",
		"--prior agreement --charged 0.99": "an image escalates when its agreement is below 0.5",
	} {
		out := must(t, append([]string{"route", "--predictions", "predictions.arrow"}, strings.Fields(arguments)...)...)
		if !strings.Contains(out, want) {
			t.Errorf("%s: %q is not in\n%s", arguments, want, out)
		}
	}
	for arguments, want := range map[string]struct {
		status int
		says   string
	}{
		"--charged 0.5 --escalation 0.2": {exitUsage, "only one"},
		"--tolerance 0.01 --charged 0.5": {exitUsage, "only one"},
		"--charged 0.2":                  {exitBadData, "the light expert alone costs 0.3"},
		"--prior margin":                 {exitUsage, `no prior "margin"; they have max_probability, agreement`},
		"--escalation 1.5":               {exitUsage, "an escalation of 1.5"},
		"--curve c.arrow --points 1":     {exitUsage, "at least its 2 ends"},
	} {
		_, complaint, status := agflow(append([]string{"route", "--predictions", "predictions.arrow"}, strings.Fields(arguments)...)...)
		if status != want.status || !strings.Contains(complaint, want.says) {
			t.Errorf("%s: status %d, %s", arguments, status, complaint)
		}
	}
}

// With --answers both, threshold and curve are those of the answers of both experts, which here are right where one is.
func TestRouteForBothAnswers(t *testing.T) {
	t.Chdir(t.TempDir())
	p := predictionsFile(t, "heavy.arrow", 4000)
	p.Both, p.LightWeight = p.Heavy, 0.25
	p.Heavy = append([]int64{}, p.Heavy...)
	for i := 0; i < len(p.Heavy); i += 8 {
		p.Heavy[i] = 1 // where the light expert is unsure, and wrong too
	}
	if err := save("predictions.arrow", arrowfile.PredictionsToRecord(memory.DefaultAllocator, p)); err != nil {
		t.Fatal(err)
	}
	out := must(t, "route", "--predictions", "predictions.arrow", "--answers", "both", "--curve", "curve.arrow")
	found, err := arrowfile.ReadRouter("router.json")
	if err != nil || found.Answers != routing.EnsembleAnswers || found.LightWeight != 0.25 || found.AccuracyCascade <= found.AccuracyHeavy {
		t.Errorf("got %+v, %v", found, err)
	}
	if want := "both experts answer it then, the light one with weight 0.25"; !strings.Contains(out, want) {
		t.Errorf("%q is not in\n%s", want, out)
	}
	points, err := load("curve.arrow", arrowfile.KindCurve, arrowfile.CurveFromRecord)
	if err != nil || points[len(points)-1].Accuracy != 1 {
		t.Error(points, err)
	}
	for arguments, says := range map[string]string{
		"--predictions heavy.arrow --answers both":        "no answers of both experts",
		"--predictions predictions.arrow --answers light": `answers are "light"; they are heavy or both`,
	} {
		if _, complaint, status := agflow(append([]string{"route"}, strings.Fields(arguments)...)...); status != exitUsage || !strings.Contains(complaint, says) {
			t.Errorf("%s: status %d, %s", arguments, status, complaint)
		}
	}
}

func TestUnwritableOutputLeavesNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	predictionsFile(t, "predictions.arrow", 100)
	_, complaint, status := agflow("route", "--predictions", "predictions.arrow", "--output", "absent/router.json")
	if status != exitFailed || !strings.Contains(complaint, "can't write absent/router.json: no such file") {
		t.Error(status, complaint)
	}
}

func TestExitStatusAndSentence(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	must(t, "score", "--statistics", "s.arrow")
	if err := os.WriteFile("foreign.arrow", []byte("ARROW1 but not ours"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		arguments string
		status    int
		says      string
	}{
		{"frob", exitUsage, `there is no command "frob": did you mean "`},
		{"scroe", exitUsage, `did you mean "score"?`},
		{"run --epoch 3", exitUsage, "there is no flag --epoch: did you mean --epochs? See agflow run --help"},
		{"plan", exitUsage, "--scores is missing: see agflow plan --help"},
		{"plan --scores scores.arrow", exitUsage, "a budget is missing"},
		{"plan --scores scores.arrow --macs 0.5 --pruning-ratio 0.5", exitUsage, "both given"},
		{"plan --scores scores.arrow --params 0.5 --latency-ms 5", exitUsage, "--params and --latency-ms were both given"},
		{"plan --scores scores.arrow --latency-ms 5", exitUsage, "no latency table was given"},
		{"plan --scores scores.arrow --macs 0.9 --latency s.arrow", exitBadData, "holds agflow statistics, expected latency"},
		{"plan --scores scores.arrow --macs 0.9 --floor 1 --round-to 1", exitUsage, "floor is 1"},
		{"diff s.arrow", exitUsage, "compares 2 plans, and 1 were named"},
		{"diff s.arrow s.arrow", exitBadData, "holds agflow statistics, expected plan"},
		{"run --macs 0.5 --pruning-ratio 0.5", exitUsage, "both given"},
		{"run --seed many", exitUsage, `invalid value "many" for flag -seed`},
		{"score --seed -1 --statistics s.arrow", exitUsage, "--seed is -1"},
		{"score --statistics s.arrow extra", exitUsage, `takes no argument, but "extra"`},
		{"inspect s.arrow --json", exitUsage, `the flag --json stands behind the argument "s.arrow"`},
		{"inspect", exitUsage, "needs at least one FILE"},
		{"score --statistics s.arrow --criterion agff", exitUsage, "agf"},
		{"score --statistics s.arrow --criterion magnitude", exitBadData, "weights"},
		{"plan --scores s.arrow --macs 0.5", exitBadData, "holds agflow statistics, expected scores"},
		{"plan --scores scores.arrow --macs 0.001 --round-to 1", exitBadData, "MACs"},
		{"plan --scores scores.arrow --macs 0.5 --ignored-layers nope", exitBadData, "nope"},
		{"verify foreign.arrow", exitBadData, "foreign.arrow has 0 agflow checksums"},
		{"inspect absent.arrow", exitFailed, "can't read absent.arrow: no such file"},
		{"statistics --tensors absent", exitFailed, "absent"},
	} {
		_, complaint, status := agflow(strings.Fields(test.arguments)...)
		if status != test.status || !strings.Contains(complaint, test.says) || !strings.HasPrefix(complaint, "agflow: ") || strings.Count(complaint, "\n") != 1 {
			t.Errorf("agflow %s: status %d, want %d; said %q, want %q", test.arguments, status, test.status, complaint, test.says)
		}
	}
}

// Two layers of 4 channels that save 10 MACs and 10 parameters each; the scores rise with the channels.
func TestBudgetsAndDifferences(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	must(t, "score", "--statistics", "s.arrow")
	for arguments, want := range map[string]string{
		"--params 0.6":                    `"params": 60`,
		"--params 60 --joint":             `"params": 60`,
		"--pruning-ratio 0.9 --floor 0.5": `"params": 60`,
		"--pruning-ratio 0.9":             `"params": 40`,
	} {
		if out := must(t, strings.Fields("plan --json --scores scores.arrow --round-to 1 "+arguments)...); !strings.Contains(out, want) {
			t.Errorf("%s: %s", arguments, out)
		}
	}
	must(t, "plan", "--scores", "scores.arrow", "--macs", "0.6", "--round-to", "1", "--output", "a.arrow")
	must(t, "plan", "--scores", "scores.arrow", "--macs", "0.4", "--round-to", "1", "--output", "b.arrow")
	var found struct {
		Jaccard float64
		Layers  []struct{ A, B, Both int }
	}
	if err := json.Unmarshal([]byte(must(t, "diff", "--json", "a.arrow", "b.arrow")), &found); err != nil {
		t.Fatal(err)
	}
	if found.Jaccard != 0.5 || len(found.Layers) != 2 || found.Layers[1].A != 2 || found.Layers[1].B != 1 || found.Layers[1].Both != 1 {
		t.Errorf("%+v", found)
	}
	if out := must(t, "diff", "a.arrow", "b.arrow"); !strings.Contains(out, "0.500") || !strings.Contains(out, "all") {
		t.Error(out)
	}
}

// A latency table of one linear layer, whose inputs are the channels of both MLPs: half of them take half the time.
func TestLatencyBudget(t *testing.T) {
	t.Chdir(t.TempDir())
	layers := []statistics.Layer{{Name: "mlp", Group: statistics.MLP, Units: 8, UnitWidth: 1, Parts: 1, UnitMACs: 10, UnitParams: 10}}
	scores := criteria.Scores{
		Model: statistics.Model{Name: "tiny", MACs: 80, Params: 80}, Layers: layers, Criterion: "agf", Score: []float64{1, 2, 3, 4, 5, 6, 7, 8},
		Metadata: map[string]string{planning.CostsKey: `{"sizes": {"mlp": 8}, "products": [{"kind": "linear", "name": "fc", "rows": 1, "inputs": [[1, "mlp"]], "outputs": [[10]]}]}`},
	}
	table := planning.LatencyTable{
		Model: "tiny", ModelMS: 16, Kind: []string{"linear", "linear"}, Rows: []int64{1, 1}, Shape: []string{"linear 1x8x10", "linear 1x8x10"},
		Inputs: []int64{1, 8}, Outputs: []int64{10, 10}, Heads: []int64{0, 0}, MS: []float64{1, 8},
	}
	if err := save("scores.arrow", arrowfile.ScoresToRecord(memory.DefaultAllocator, scores)); err != nil {
		t.Fatal(err)
	}
	if err := save("latency.arrow", arrowfile.LatencyToRecord(memory.DefaultAllocator, table)); err != nil {
		t.Fatal(err)
	}
	out := must(t, "plan", "--scores", "scores.arrow", "--latency-ms", "9.9", "--latency", "latency.arrow", "--round-to", "1")
	if !strings.Contains(out, "8.00 of 16.00 ms") || !strings.Contains(out, "mlp    mlp    8      4") {
		t.Error(out)
	}
	if out := must(t, "inspect", "plan.arrow", "latency.arrow"); !strings.Contains(out, `{"macs":40,"params":40,"latency_ms":8}`) || !strings.Contains(out, "latency.arrow: latency, 2 rows") {
		t.Error(out)
	}
	scores.Metadata["agflow.note"] = strings.Repeat("é", 500)
	if err := save("long.arrow", arrowfile.ScoresToRecord(memory.DefaultAllocator, scores)); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "inspect", "long.arrow"); !strings.Contains(out, strings.Repeat("é", 100)+"… (1000 bytes)") {
		t.Error(out)
	}
	if out := must(t, "verify", "latency.arrow"); !strings.Contains(out, "latency.arrow: ok") {
		t.Error(out)
	}
}

// With --json a machine finds one JSON object on stdout, whatever happens.
func TestJSONTellsFailuresToo(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	for _, arguments := range [][]string{{"--json", "verify", "s.arrow", "absent.arrow"}, {"verify", "--json", "s.arrow", "absent.arrow"}} {
		out, _, status := agflow(arguments...)
		var told struct {
			Error string
			Exit  int
			Found []verdict
		}
		if err := json.Unmarshal([]byte(out), &told); err != nil {
			t.Fatal(err, out)
		}
		if status != exitFailed || told.Exit != exitFailed || told.Error == "" || len(told.Found) != 2 || !told.Found[0].OK || told.Found[1].OK {
			t.Errorf("status %d, %+v", status, told)
		}
	}
}

func TestCodesMapToStatuses(t *testing.T) {
	for code, want := range map[fault.Code]int{
		fault.Value: exitUsage, fault.Shape: exitBadData, fault.Dtype: exitBadData, fault.Nonfinite: exitBadData, fault.Empty: exitBadData,
		fault.Layer: exitBadData, fault.Budget: exitBadData, fault.File: exitBadData, fault.IO: exitFailed, fault.Closed: exitFailed, fault.Internal: exitFailed,
		"device": exitBadData, "model": exitBadData,
	} {
		inGo := fmt.Errorf("outer: %w", fault.New(code, "text"))
		inPython := &pyhost.Error{Type: "AgflowError", Code: string(code)}
		if exitStatus(inGo) != want || exitStatus(inPython) != want {
			t.Errorf("%s: %d in Go, %d in Python, want %d", code, exitStatus(inGo), exitStatus(inPython), want)
		}
	}
	for err, want := range map[error]int{
		errors.New("plain"):                       exitFailed,
		&pyhost.Error{Type: "ZeroDivisionError"}:  exitPython,
		&pyhost.Error{Type: "KeyboardInterrupt"}:  exitInterrupted,
		pythonError(errors.New("no interpreter")): exitPython,
	} {
		if got := exitStatus(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func TestPanicBecomesAnError(t *testing.T) {
	err := guarded(func() error { panic("broken") })
	if fault.CodeOf(err) != fault.Internal || !strings.Contains(err.Error(), "broken") {
		t.Error(err)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	for _, c := range newApp(nil, nil).Commands {
		if out := must(t, c.Name, "--help"); c.Usage == "" || !strings.Contains(out, c.Usage) {
			t.Errorf("%s: %s", c.Name, out)
		}
	}
}
