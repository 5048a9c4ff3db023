package routing

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"agflow/core/fault"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-12 }

// The routing table of arXiv 2603.12354: light expert 0.85, 48.5 % escalated. Its 0.92 omits the
// light pass of escalated images; with it, the cascade costs 1.335 of the heavy expert.
func TestLedgerOfThePaper(t *testing.T) {
	l, err := NewLedger(Cost{Light: 850, Heavy: 1000, Unit: MACs}, 1000, 485)
	if err != nil {
		t.Fatal(err)
	}
	if !near(l.Charged, 1.335) || math.Round(l.Uncharged*100) != 92 ||
		!near(l.Uncharged, 0.92275) || l.Verdict != Loss || !near(l.BreakEven, 0.15) ||
		l.Escalation != 0.485 {
		t.Fatalf("got %+v", l)
	}
}

func TestLedgerByHand(t *testing.T) {
	for name, c := range map[string]struct {
		cost               Cost
		escalated          int64
		charged, uncharged float64
		breakEven          float64
		verdict            string
	}{
		"nothing escalates":     {Cost{200, 1000, 0, MACs}, 0, 0.2, 0.2, 0.8, Gain},
		"everything":            {Cost{200, 1000, 0, MACs}, 100, 1.2, 1, 0.8, Loss},
		"break-even is a loss":  {Cost{200, 1000, 0, MACs}, 80, 1, 0.84, 0.8, Loss},
		"a shared prefix saves": {Cost{400, 1000, 300, MACs}, 50, 0.75, 0.7, 600.0 / 700, Gain},
		"wholly shared":         {Cost{400, 1000, 400, MACs}, 100, 1, 1, 1, Loss},
		"light as heavy":        {Cost{1000, 1000, 1000, MACs}, 0, 1, 1, 0, Loss},
		"money":                 {Cost{0.25, 1, 0, "EUR"}, 50, 0.75, 0.625, 0.75, Gain},
		"light heavier":         {Cost{1500, 1000, 0, MACs}, 0, 1.5, 1.5, 0, Loss},
	} {
		l, err := NewLedger(c.cost, 100, c.escalated)
		if err != nil || !near(l.Charged, c.charged) || !near(l.Uncharged, c.uncharged) ||
			!near(l.BreakEven, c.breakEven) || l.Verdict != c.verdict {
			t.Errorf("%s: got %+v, %v", name, l, err)
		}
	}
}

func TestLedgerRefusals(t *testing.T) {
	ok := Cost{Light: 1, Heavy: 2, Unit: MACs}
	for name, c := range map[string]struct {
		cost               Cost
		samples, escalated int64
		code               fault.Code
	}{
		"no light":      {Cost{0, 2, 0, MACs}, 1, 0, fault.Value},
		"no heavy":      {Cost{1, 0, 0, MACs}, 1, 0, fault.Value},
		"shared":        {Cost{1, 2, 2, MACs}, 1, 0, fault.Value},
		"shared below":  {Cost{1, 2, -1, MACs}, 1, 0, fault.Value},
		"no samples":    {ok, 0, 0, fault.Empty},
		"escalated":     {ok, 1, 2, fault.Value},
		"no unit":       {Cost{1, 2, 0, ""}, 1, 0, fault.Value},
		"no word":       {Cost{1, 2, 0, "a\x1b[31m"}, 1, 0, fault.Value},
		"a long unit":   {Cost{1, 2, 0, strings.Repeat("x", 33)}, 1, 0, fault.Value},
		"NaN":           {Cost{math.NaN(), 2, 0, "ms"}, 1, 0, fault.Value},
		"infinite":      {Cost{1, math.Inf(1), 0, "ms"}, 1, 0, fault.Value},
		"no ratio":      {Cost{1e300, 1e-300, 0, "EUR"}, 1, 0, fault.Value},
		"escalated < 0": {ok, 1, -1, fault.Value},
	} {
		if _, err := NewLedger(c.cost, c.samples, c.escalated); err == nil ||
			fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The JSON keys are read by users' scripts.
func TestLedgerJSON(t *testing.T) {
	l, err := NewLedger(Cost{Light: 1, Heavy: 4, Shared: 0, Unit: MACs}, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(l)
	want := `{"samples":2,"escalated":1,"escalation":0.5,"light_cost":1,"heavy_cost":4,` +
		`"shared_cost":0,"cost_unit":"MACs","charged":0.75,"uncharged":0.625,` +
		`"break_even":0.75,"verdict":"gain"}`
	if err != nil || string(text) != want {
		t.Fatalf("got %s, %v", text, err)
	}
}
