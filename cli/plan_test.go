package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"agflow/bridge/tables"
	"agflow/core/criteria"
	"agflow/core/planning"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

func TestFilesFromStatisticsToPlan(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "a.arrow", 1)
	statisticsFile(t, "b.arrow", 2)
	must(t, "merge", "--output", "both.arrow", "a.arrow", "b.arrow")
	must(t, "score", "--statistics", "both.arrow", "--criterion", "agf")
	solved := decode[struct {
		Output string
		Report struct {
			MACs   int64 `json:"macs"`
			Layers []struct{ Kept int }
		}
	}](t, "plan", "--scores", "scores.arrow", "--pruning-ratio", "0.5", "--round-to", "1")
	kept := solved.Report.Layers[0].Kept
	if solved.Output != "plan.arrow" || solved.Report.MACs != 60 || kept != 2 {
		t.Errorf("%+v", solved)
	}
	merged, err := loadStatistics([]string{"both.arrow"})
	if err != nil || merged[0].SumAbsYG[3] != 16+64 || merged[0].Rows[0] != 2 {
		t.Errorf("merged %+v, %v", merged, err)
	}
	plan, err := load("plan.arrow", tables.KindPlan, tables.PlanFromRecord)
	if err != nil || fmt.Sprint(plan.Keep) != "[false false true true false false true true]" {
		t.Errorf("plan keeps %v, %v", plan.Keep, err)
	}
	contains(t, must(t, "inspect", "plan.arrow"), "plan.arrow: plan, 8 rows", "agflow.request")
	out := must(t, "verify", "plan.arrow", "scores.arrow")
	if out != "plan.arrow: ok\nscores.arrow: ok\n" {
		t.Error(out)
	}
}

// readerStatistics writes statistics with the weights that read each unit; in the second layer
// these are all but the same.
func readerStatistics(t *testing.T, path string) {
	t.Helper()
	table := statisticsFile(t, path, 1)
	for u := range table.ReaderWeights {
		table.ReaderWeights[u], table.SumReader2[u] = 1, float64(1+u%4)
		table.Rows[u], table.Samples[u] = 2, 2
		if u >= 4 {
			table.SumReader2[u] = 1 + float64(u)/100
		}
	}
	write(t, path, tables.StatisticsToRecord(memory.DefaultAllocator, table))
}

// Statistics give the same plan, byte by byte, as the scores of their criterion with the scores
// that share widths.
func TestPlanFromStatistics(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "plain.arrow", 1)
	readerStatistics(t, "readers.arrow")
	for _, c := range []struct{ statistics, criterion, asked, widths string }{
		{"plain.arrow", "agf", "", "agf"},
		{"plain.arrow", "activation", "", "activation"},
		{"plain.arrow", "agf", "uniform", ""},
		{"readers.arrow", "agf", "", "variance_weighted"},
		{"readers.arrow", "agf", "taylor", "taylor"},
		{"readers.arrow", "activation", "uniform", ""},
	} {
		must(t, "score", "--force", "--statistics", c.statistics, "--criterion", c.criterion)
		budget := []string{"--macs", "0.6", "--round-to", "1"}
		scored := append([]string{"plan", "--force", "--scores", "scores.arrow"}, budget...)
		if c.widths != "" {
			must(t, "score", "--statistics", c.statistics, "--criterion", c.widths,
				"--output", "widths.arrow")
			scored = append(scored, "--widths", "widths.arrow")
		}
		must(t, scored...)
		direct := append([]string{
			"plan", "--statistics", c.statistics, "--criterion", c.criterion,
			"--output", "direct.arrow",
		}, budget...)
		if c.asked != "" {
			direct = append(direct, "--widths", c.asked)
		}
		must(t, direct...)
		if !bytes.Equal(fileOf(t, "plan.arrow"), fileOf(t, "direct.arrow")) {
			t.Errorf("%+v: the plan of the statistics is not that of the scores", c)
		}
	}
}

func fileOf(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestPlanRefusals(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	must(t, "score", "--statistics", "s.arrow")
	refuses(t, "plan", map[string]refusal{
		"":                      {exitUsage, "a budget is missing"},
		"--scores scores.arrow": {exitUsage, "a budget is missing"},
		"--macs 0.5": {exitUsage,
			"--statistics or --scores is missing: see agflow plan --help"},
		"--macs 0.5 --scores scores.arrow --statistics s.arrow": {exitUsage,
			"--scores and --statistics were both given"},
		"--macs 0.5 --scores scores.arrow --criterion taylor": {exitUsage,
			"scores.arrow holds scores by agf and --criterion is taylor"},
		"--macs 0.5 --scores s.arrow": {exitBadData,
			"holds agflow statistics, expected scores"},
		"--macs 0.5 --scores scores.arrow --widths s.arrow": {exitBadData,
			"holds agflow statistics, expected scores"},
		"--macs 0.5 --statistics scores.arrow": {exitBadData,
			"holds agflow scores, expected statistics"},
		"--macs 0.5 --statistics s.arrow --criterion agff": {exitUsage, "agff"},
		"--macs 0.5 --statistics s.arrow --widths wanda":   {exitBadData, "wanda"},
		"--macs 0.5 --statistics s.arrow --seed -1":        {exitUsage, "--seed is -1"},
	})
}

func TestBudgetRefusals(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	must(t, "score", "--statistics", "s.arrow")
	refuses(t, "plan --scores scores.arrow", map[string]refusal{
		"--macs 0.5 --pruning-ratio 0.5": {exitUsage, "both given"},
		"--params 0.5 --latency-ms 5": {exitUsage,
			"--params and --latency-ms were both given"},
		"--latency-ms 5":                       {exitUsage, "no latency table was given"},
		"--macs 0.9 --latency s.arrow":         {exitBadData, "expected latency"},
		"--macs 0.9 --floor 1 --round-to 1":    {exitUsage, "floor is 1"},
		"--macs 0.001 --round-to 1":            {exitBadData, "MACs"},
		"--macs 0.5 --ignored-layers nope":     {exitBadData, "nope"},
		"--macs 0.5 --ignored-layers blocks.*": {exitBadData, "no layer to prune"},
	})
}

func TestBudgets(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "s.arrow", 1)
	must(t, "score", "--statistics", "s.arrow")
	for arguments, want := range map[string]string{
		"--params 0.6":                    `"params": 60`,
		"--params 0.06K --joint":          `"params": 60`,
		"--pruning-ratio 0.9 --floor 0.5": `"params": 60`,
		"--pruning-ratio 0.9":             `"params": 40`,
	} {
		line := "plan --json --force --scores scores.arrow --round-to 1 " + arguments
		contains(t, must(t, strings.Fields(line)...), want)
	}
}

// What no plan can remove is said below the layers.
func TestPlanSaysWhatIsKept(t *testing.T) {
	t.Chdir(t.TempDir())
	table := statisticsFile(t, "a.arrow", 1)
	table.Metadata["agflow.kept"] = `[{"name": "layer4.0.conv2", "channels": 512, ` +
		`"reason": "read by aten.foo"}, {"name": "a\nb", "channels": 1, "reason": "c"}]`
	write(t, "a.arrow", tables.StatisticsToRecord(memory.DefaultAllocator, table))
	plan := []string{"plan", "--statistics", "a.arrow", "--macs", "0.8", "--round-to", "1"}
	contains(t, must(t, plan...), "\nlayer4.0.conv2: 512 channels kept, read by aten.foo\na",
		"b: 1 channels kept, c\n")
	contains(t, must(t, append(plan, "--json")...), `"reason": "read by aten.foo"`)
}

// Kinds that no layer is of are skipped beside one that some are of, words that nothing is are not.
func TestPlanOfKinds(t *testing.T) {
	t.Chdir(t.TempDir())
	statisticsFile(t, "a.arrow", 1)
	plan := []string{"plan", "--statistics", "a.arrow", "--macs", "0.8", "--round-to", "1"}
	must(t, append(plan, "--groups", "conv,mlp,stage")...)
	for _, groups := range []string{"conv", "mlp,neurons"} {
		_, complaint, status := agflow(append(plan, "--groups", groups)...)
		if status != exitUsage {
			t.Errorf("%s: status %d", groups, status)
		}
		contains(t, complaint, "which no layer is of; the groups of these scores are mlp")
	}
}

// A latency table of one linear layer, whose inputs are the channels of an MLP: half of them take
// half the time.
func TestLatencyBudget(t *testing.T) {
	t.Chdir(t.TempDir())
	scores := criteria.Scores{
		Model: statistics.Model{Name: "tiny", MACs: 80, Params: 80},
		Layers: []statistics.Layer{{
			Name: "mlp", Group: "mlp", Rounds: true, Units: 8, UnitWidth: 1, Parts: 1,
			UnitMACs: 10, UnitParams: 10,
		}},
		Criterion: "agf", Score: []float64{1, 2, 3, 4, 5, 6, 7, 8},
		Metadata: map[string]string{planning.CostsKey: `{"sizes": {"mlp": 8}, "products": [` +
			`{"kind": "linear", "name": "fc", "rows": 1, "inputs": [[1, "mlp"]], ` +
			`"outputs": [[10]]}]}`},
	}
	table := planning.LatencyTable{
		Model: "tiny", ModelMS: 16, Kind: []string{"linear", "linear"}, Rows: []int64{1, 1},
		Shape: []string{"linear 1x8x10", "linear 1x8x10"}, Inputs: []int64{1, 8},
		Outputs: []int64{10, 10}, Heads: []int64{0, 0}, MS: []float64{1, 8},
	}
	write(t, "scores.arrow", tables.ScoresToRecord(memory.DefaultAllocator, scores))
	write(t, "latency.arrow", tables.LatencyToRecord(memory.DefaultAllocator, table))
	out := must(t, "plan", "--scores", "scores.arrow", "--latency-ms", "9.9",
		"--latency", "latency.arrow", "--round-to", "1")
	contains(t, out, "8.00 of 16.00 ms", "mlp    mlp    8      4")
	if strings.Contains(out, "utility") { // its kept share ranks plans of other widths wrongly
		t.Error(out)
	}
	out = must(t, "inspect", "plan.arrow", "latency.arrow")
	contains(t, out, `{"macs":40,"params":40,"latency_ms":8}`, "latency.arrow: latency, 2 rows")
	contains(t, must(t, "verify", "latency.arrow"), "latency.arrow: ok")
}
