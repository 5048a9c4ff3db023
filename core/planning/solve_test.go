package planning

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

func keptOf(rep Report) []int {
	kept := make([]int, len(rep.Layers))
	for i, l := range rep.Layers {
		kept[i] = l.Kept
	}
	return kept
}

// Figures computed by hand on one block: 4 heads of 50 MACs, 16 channels of 5, 100 for the rest:
// 380 MACs.
func TestPlansByHand(t *testing.T) {
	for name, c := range map[string]struct {
		request Request
		kept    []int
		macs    int64
		miss    float64
	}{
		"half":                   {Request{PruningRatio: 0.5}, []int{2, 8}, 240, 0},
		"half in steps of 6":     {Request{PruningRatio: 0.5, RoundTo: 6}, []int{2, 6}, 230, 0.2},
		"nine tenths is not ten": {Request{PruningRatio: 0.9}, []int{1, 1}, 155, 0},
		"three quarters":         {Request{PruningRatio: 0.75}, []int{1, 4}, 170, 0},
		"heads alone": {
			Request{PruningRatio: 0.5, Groups: []string{"heads"}}, []int{2, 16}, 280, 0,
		},
		"ignored by pattern": {
			Request{PruningRatio: 0.5, IgnoredLayers: []string{"blocks.*.attn"}}, []int{4, 8}, 340,
			0,
		},
		"all MACs": {Request{MACs: "1"}, []int{4, 16}, 380, 0},
		"absolute": {Request{MACs: "240"}, []int{2, 8}, 240, 0},
		"share":    {Request{MACs: "0.6316"}, []int{2, 8}, 240, 0}, // 240.008
		"kilo":     {Request{MACs: "0.24K"}, []int{2, 8}, 240, 0},
		// the next step is a head of 50
		"one channel less": {Request{MACs: "239"}, []int{1, 8}, 190, -49.0 / 239},
		"one channel more": {Request{MACs: "245"}, []int{2, 9}, 245, 0},
		"least":            {Request{MACs: "155"}, []int{1, 1}, 155, 0},
	} {
		_, rep := solveOK(t, vit("agf_relative", 1), c.request)
		if name == "nine tenths is not ten" {
			c.miss = (18.0/20 - 0.9) / 0.9
		}
		if !slices.Equal(keptOf(rep), c.kept) || rep.MACs != c.macs ||
			math.Abs(rep.Miss-c.miss) > 1e-12 {
			t.Errorf("%s: kept %v, %d MACs, miss %v; want %v, %d, %v", name, keptOf(rep), rep.MACs,
				rep.Miss, c.kept, c.macs, c.miss)
		}
	}
}

// Of the steps that reach the same share together, those of greatest normalised importance per MAC
// come first.
func TestCandidatesAreTakenByImportancePerMAC(t *testing.T) {
	layer := func(name string, macs int64) statistics.Layer {
		return statistics.Layer{
			Name: name, Group: "mlp", Rounds: true, Units: 2, UnitWidth: 1, Parts: 1,
			UnitMACs: macs,
		}
	}
	s := criteria.Scores{
		Criterion: "agf", Model: statistics.Model{Name: "toy", MACs: 100 + 2*(10+20+10)},
		Layers: []statistics.Layer{layer("a", 10), layer("b", 20), layer("c", 10)},
		// The second units of a, b, c have 0.8, 1, 1 of their layer's mean, so 0.08, 0.05, 0.1 per
		// MAC.
		Score: []float64{12, 8, 1, 1, 500, 500},
	}
	for macs, want := range map[string][]int{
		"140": {1, 1, 1}, "149": {1, 1, 1}, "150": {1, 1, 2}, "160": {2, 1, 2}, "179": {2, 1, 2},
		"180": {2, 2, 2},
	} {
		_, rep := solveOK(t, s, Request{MACs: macs})
		if !slices.Equal(keptOf(rep), want) {
			t.Errorf("macs %s: kept %v, want %v", macs, keptOf(rep), want)
		}
	}
}

// The share of utility that is kept, and the part of it that rounding costs.
func TestUtilityByHand(t *testing.T) {
	s := criteria.Scores{
		Criterion: "agf", Model: statistics.Model{Name: "toy"},
		Layers: []statistics.Layer{
			{Name: "a", Group: "mlp", Rounds: true, Units: 4, UnitWidth: 1, Parts: 1, UnitMACs: 1},
			{Name: "b", Group: "mlp", Rounds: true, Units: 4, UnitWidth: 1, Parts: 1, UnitMACs: 1},
		},
		Score: []float64{4, 3, 2, 1, 100, 100, 100, 100},
	}
	_, rep := solveOK(t, s, Request{PruningRatio: 0.25, RoundTo: 2})
	// Rounded: two units each, 7/10 and 2/4, layers of equal width: 0.6. Unrounded: three each,
	// 9/10 and 3/4: 0.825.
	if math.Abs(rep.KeptUtility-0.6) > 1e-15 || math.Abs(rep.RoundingPrice-0.225) > 1e-15 {
		t.Fatalf("kept utility %v, rounding price %v", rep.KeptUtility, rep.RoundingPrice)
	}
	if rep.DenseMACs != 0 || rep.MACs != 0 || rep.MACsRatio != 0 {
		t.Fatalf("a model without recorded MACs has %+v", rep)
	}
	s.Score = make([]float64, 8)
	if _, rep = solveOK(t, s, Request{PruningRatio: 0.25}); rep.KeptUtility != 1 {
		t.Fatalf("without any utility, the share kept is %v", rep.KeptUtility)
	}
}

// The plan carries the scores' identity and the request with its defaults filled in, and shares no
// memory.
func TestPlanKeepsTheScoresIdentity(t *testing.T) {
	s := vit("agf", 1)
	s.Seed, s.Metadata = 9, map[string]string{"agflow.data": "x"}
	p, _ := solveOK(t, s, Request{PruningRatio: 0.5})
	if p.Model != s.Model || p.Criterion != "agf" || p.Seed != 9 ||
		p.Metadata["agflow.data"] != "x" || !slices.Equal(p.Score, s.Score) {
		t.Fatalf("got %+v", p)
	}
	if p.Request.Widths != Uniform || p.Request.RoundTo != 1 || p.Request.Groups == nil ||
		p.Request.IgnoredLayers == nil {
		t.Fatalf("the request is %+v", p.Request)
	}
	p.Score[0], p.Layers[0].Name, p.Metadata["agflow.data"] = -1, "changed", "changed"
	if s.Score[0] == -1 || s.Layers[0].Name == "changed" || s.Metadata["agflow.data"] != "x" {
		t.Fatal("the plan shares memory with the scores")
	}
}

// The function is long because of its table of cases.
func TestRefusals(t *testing.T) {
	ok := Request{PruningRatio: 0.5}
	for name, c := range map[string]struct {
		request Request
		change  func(*criteria.Scores)
		code    fault.Code
		says    string
	}{
		"no budget": {Request{}, nil, fault.Value, "exactly one"},
		"two budgets": {
			Request{PruningRatio: 0.5, MACs: "0.5"}, nil, fault.Value, "exactly one",
		},
		"ratio 1":       {Request{PruningRatio: 1}, nil, fault.Value, "below 1"},
		"ratio below 0": {Request{PruningRatio: -0.1}, nil, fault.Value, "above 0"},
		"ratio NaN":     {Request{PruningRatio: math.NaN()}, nil, fault.Value, "NaN"},
		"params word":   {Request{Params: "few"}, nil, fault.Value, `params is "few"`},
		"params unknown": {
			Request{Params: "0.5"}, nil, fault.Value, "parameters are not recorded",
		},
		"params of model": {
			ok, func(s *criteria.Scores) { s.Model.Params, s.Layers[0].UnitParams = 3, 1 },
			fault.Value, `"vit" has 3 parameters`,
		},
		"macs and params": {Request{MACs: "0.5", Params: "0.5"}, nil, fault.Value, "exactly one"},
		"latency below 0": {Request{LatencyMS: -1}, nil, fault.Value, "latency_ms is -1"},
		"latency NaN":     {Request{LatencyMS: math.NaN()}, nil, fault.Value, "latency_ms is NaN"},
		"latency alone":   {Request{LatencyMS: 5}, nil, fault.Value, "no latency table was given"},
		"floor 1":         {Request{PruningRatio: 0.5, Floor: 1}, nil, fault.Value, "floor is 1"},
		"floor below 0": {
			Request{PruningRatio: 0.5, Floor: -0.1}, nil, fault.Value, "floor is -0.1",
		},
		"floor NaN": {
			Request{PruningRatio: 0.5, Floor: math.NaN()}, nil, fault.Value, "floor is NaN",
		},
		"floor and steps": {
			Request{PruningRatio: 0.5, Floor: 0.9, RoundTo: 6}, nil, fault.Value,
			"no multiple of round_to 6 up to them is at least the floor's 15",
		},
		"round_to of a head": {
			Request{PruningRatio: 0.5, RoundTo: 9},
			func(s *criteria.Scores) { s.Layers[1].Parts = 2 },
			fault.Value,
			`"blocks.0.mlp" has 16 units, fewer than round_to 9 in each of its 2 parts`,
		},
		"macs 0":          {Request{MACs: "0"}, nil, fault.Value, `macs is "0"`},
		"macs below 0":    {Request{MACs: "-5M"}, nil, fault.Value, `macs is "-5M"`},
		"macs NaN":        {Request{MACs: "NaN"}, nil, fault.Value, `macs is "NaN"`},
		"macs Inf":        {Request{MACs: "Inf"}, nil, fault.Value, `macs is "Inf"`},
		"macs too many":   {Request{MACs: "1e10G"}, nil, fault.Value, `macs is "1e10G"`},
		"macs word":       {Request{MACs: "half"}, nil, fault.Value, `"350M" or "1.2G"`},
		"macs unit alone": {Request{MACs: "G"}, nil, fault.Value, `macs is "G"`},
		"macs unknown": {
			Request{MACs: "0.5"}, func(s *criteria.Scores) { s.Model.MACs = 0 }, fault.Value,
			"not recorded",
		},
		"macs of model": {
			ok, func(s *criteria.Scores) { s.Model.MACs = 279 }, fault.Value, "whole dense model",
		},
		"macs negative": {
			ok, func(s *criteria.Scores) { s.Model.MACs = -1 }, fault.Value, "-1 MACs",
		},
		"unreachable": {Request{MACs: "154"}, nil, fault.Budget, "reaches 155 at the least"},
		"unreachable by rounding": {
			Request{MACs: "154", RoundTo: 8}, nil, fault.Budget, "; lower round_to, which is 8, or",
		},
		"round_to": {
			Request{PruningRatio: 0.5, RoundTo: -1}, nil, fault.Value, "round_to is -1",
		},
		"round_to wide": {
			Request{PruningRatio: 0.5, RoundTo: 17}, nil, fault.Value,
			`"blocks.0.mlp" has 16 units, fewer than round_to 17`,
		},
		"group": {
			Request{PruningRatio: 0.5, Groups: []string{"convs"}}, nil, fault.Value, "heads, mlp",
		},
		"ignored unknown": {
			Request{PruningRatio: 0.5, IgnoredLayers: []string{"block.*"}}, nil, fault.Layer,
			`"block.*", which matches no layer`,
		},
		"ignored bad": {
			Request{PruningRatio: 0.5, IgnoredLayers: []string{"[a"}}, nil, fault.Value,
			"no valid pattern",
		},
		"ignored all": {
			Request{PruningRatio: 0.5, IgnoredLayers: []string{"*"}}, nil, fault.Layer,
			"leave no layer",
		},
		"NaN score": {
			ok, func(s *criteria.Scores) { s.Score[4] = math.NaN() }, fault.Nonfinite,
			`unit 0 of layer "blocks.0.mlp"`,
		},
		"too few scores": {
			ok, func(s *criteria.Scores) { s.Score = s.Score[:5] }, fault.Shape, "5 scores",
		},
		"no layers": {
			ok, func(s *criteria.Scores) { *s = criteria.Scores{} }, fault.Empty, "no layers",
		},
		"layers too heavy": {
			ok, func(s *criteria.Scores) { s.Layers[1].UnitMACs = math.MaxInt64 }, fault.Value,
			"whole dense model",
		},
	} {
		s := vit("agf", 1)
		if c.change != nil {
			c.change(&s)
		}
		_, _, err := solveMaybe(s, nil, c.request)
		if err == nil || fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want code %s saying %q", name, err, c.code, c.says)
		}
	}
}

// By hand: a floor in whole steps, in addition to the budget.
func TestFloorsByHand(t *testing.T) {
	for name, c := range map[string]struct {
		request Request
		kept    []int
	}{
		"shares":         {Request{PruningRatio: 0.9, Floor: 0.5}, []int{2, 8}},
		"rounded up":     {Request{PruningRatio: 0.9, Floor: 0.3}, []int{2, 5}},
		"in steps":       {Request{PruningRatio: 0.9, Floor: 0.3, RoundTo: 4}, []int{2, 8}},
		"below a step":   {Request{PruningRatio: 0.9, Floor: 0.01}, []int{1, 1}},
		"not in the way": {Request{PruningRatio: 0.25, Floor: 0.5}, []int{3, 12}},
	} {
		_, rep := solveOK(t, vit("agf", 1), c.request)
		if !slices.Equal(keptOf(rep), c.kept) {
			t.Errorf("%s: kept %v, want %v", name, keptOf(rep), c.kept)
		}
	}
}

// A layer of fewer units than round_to stays whole beside one that has more.
func TestSmallLayersStayWhole(t *testing.T) {
	s := criteria.Scores{Criterion: "agf", Model: statistics.Model{Name: "cnn", MACs: 100}}
	for _, units := range []int{4, 20} {
		s.Layers = append(s.Layers, statistics.Layer{
			Name: fmt.Sprint(units), Group: "conv", Rounds: true, Units: units, UnitWidth: 1,
			Parts: 1, UnitMACs: 1,
		})
	}
	s.Score = make([]float64, 24)
	_, rep := solveOK(t, s, Request{MACs: "0.9", RoundTo: 8})
	if got := keptOf(rep); !slices.Equal(got, []int{4, 8}) {
		t.Errorf("kept %v", got)
	}
}

// Of two layers that share a schedule the one whose units cost half keeps more of them, unless the
// costs are all but the same.
func TestWidthsGoByImportancePerCost(t *testing.T) {
	for narrow, want := range map[int64][]int{100: {2, 2}, 105: {2, 2}, 200: {1, 3}} {
		s := criteria.Scores{Criterion: "agf", Score: []float64{4, 3, 2, 1, 4, 3, 2, 1}}
		for i, macs := range []int64{narrow, 100} {
			s.Layers = append(s.Layers, statistics.Layer{
				Name: fmt.Sprint(i), Group: "conv", Rounds: true, Units: 4, UnitWidth: 1, Parts: 1,
				UnitMACs: macs,
			})
			s.Model.MACs += 4 * macs
		}
		widths := s
		widths.Criterion = "variance"
		_, rep, err := Solve(Input{Scores: s, Widths: &widths},
			Request{MACs: fmt.Sprint(s.Model.MACs / 2)})
		if got := keptOf(rep); err != nil || !slices.Equal(got, want) {
			t.Errorf("units of %d and 100 MACs: kept %v, want %v, %v", narrow, got, want, err)
		}
	}
}

// Of layers that cost as much as each other, a few costly units or many cheap ones, each keeps the
// same share.
func TestWidthsOfLayersOfOneCostAreAlike(t *testing.T) {
	s := criteria.Scores{Criterion: "agf"}
	for i, units := range []int{4, 16} {
		s.Layers = append(s.Layers, statistics.Layer{
			Name: fmt.Sprint(i), Group: "conv", Rounds: true, Units: units, UnitWidth: 1, Parts: 1,
			UnitMACs: int64(160 / units),
		})
		for unit := range units {
			s.Score = append(s.Score, float64(units-unit)/float64(units))
		}
	}
	s.Model.MACs = 320
	_, rep, err := Solve(Input{Scores: s, Widths: &s}, Request{MACs: "160"})
	if got := keptOf(rep); err != nil || !slices.Equal(got, []int{2, 8}) {
		t.Errorf("kept %v, %v", got, err)
	}
}

// Where they are read into residual streams, the few costly units go first.
func TestWidthsOfResidualLayers(t *testing.T) {
	s := criteria.Scores{Criterion: "agf"}
	for i, units := range []int{4, 16} {
		s.Layers = append(s.Layers, statistics.Layer{
			Name: fmt.Sprint(i), Group: "conv", Rounds: true, Residual: true, Units: units,
			UnitWidth: 1, Parts: 1, UnitMACs: int64(160 / units),
		})
		for unit := range units {
			s.Score = append(s.Score, float64(units-unit)/float64(units))
		}
	}
	s.Model.MACs = 320
	_, rep, err := Solve(Input{Scores: s, Widths: &s}, Request{MACs: "160"})
	// By value per cost the second unit of the first, 1/4 * sqrt(4/10) * 3/4 / 40, comes behind the
	// eleventh of the second, 1/16 * sqrt(16/10) * 6/16 / 10, and no longer fits.
	if got := keptOf(rep); err != nil || !slices.Equal(got, []int{1, 11}) {
		t.Errorf("kept %v, %v", got, err)
	}
}

// branches has three blocks of one branch each, of 30 MACs, and an MLP of 4 channels of 5 MACs in a
// model of 210.
func branches() criteria.Scores {
	s := criteria.Scores{
		Criterion: "agf", Model: statistics.Model{Name: "toy", MACs: 210},
		Score: []float64{3, 1, 2, 4, 3, 2, 1},
	}
	for _, name := range []string{"a", "b", "c"} {
		s.Layers = append(s.Layers, statistics.Layer{
			Name: name, Group: "block", MayVanish: true, Units: 1, UnitWidth: 8, Parts: 1,
			UnitMACs: 30,
		})
	}
	s.Layers = append(s.Layers, statistics.Layer{
		Name: "mlp", Group: "mlp", Rounds: true, Units: 4, UnitWidth: 1, Parts: 1, UnitMACs: 5,
	})
	return s
}

// Branches share a schedule, are compared by their own scores, and may all be removed, whatever the
// floor.
func TestBranchesByHand(t *testing.T) {
	for name, c := range map[string]struct {
		request Request
		kept    []int
	}{
		"a third": {
			Request{PruningRatio: 0.34, Groups: []string{"block"}}, []int{1, 0, 0, 4},
		},
		"two thirds stay": {
			Request{PruningRatio: 0.33, Groups: []string{"block"}, Floor: 0.9}, []int{1, 0, 1, 4},
		},
		"all": {
			Request{PruningRatio: 0.9, Groups: []string{"block"}}, []int{0, 0, 0, 4},
		},
		"by MACs":           {Request{MACs: "155", Groups: []string{"block"}}, []int{1, 0, 0, 4}},
		"with others alike": {Request{PruningRatio: 0.5}, []int{1, 0, 0, 2}},
	} {
		p, rep := solveOK(t, branches(), c.request)
		if !slices.Equal(keptOf(rep), c.kept) || p.Validate() != nil {
			t.Errorf("%s: kept %v, want %v; %v", name, keptOf(rep), c.kept, p.Validate())
		}
	}
}

// Joint: a channel has 4, 3, 2, 1 tenths of the MLP's importance for 5 MACs; a branch 1.5, 0.5 and
// 1 (of a mean branch) for 30. So per MAC: 0.08, 0.06, 0.04, 0.02, and 0.05, 0.0167, 0.0333. The
// first channel is the floor.
func TestJointByHand(t *testing.T) {
	for macs, want := range map[string][]int{
		"105": {0, 0, 0, 1}, "110": {0, 0, 0, 2}, "139": {0, 0, 0, 2}, "140": {1, 0, 0, 2},
		"145": {1, 0, 0, 3}, "174": {1, 0, 0, 3}, "175": {1, 0, 1, 3}, "180": {1, 0, 1, 4},
		"209": {1, 0, 1, 4}, "210": {1, 1, 1, 4},
	} {
		p, rep := solveOK(t, branches(), Request{MACs: macs, Joint: true})
		if !slices.Equal(keptOf(rep), want) || p.Request.Widths != "agf" {
			t.Errorf("macs %s: kept %v, want %v; widths %s", macs, keptOf(rep), want,
				p.Request.Widths)
		}
	}
}

// Each head keeps its own best dimensions, equally many, in multiples of round_to.
func TestPartsKeepEquallyMany(t *testing.T) {
	s := criteria.Scores{
		Criterion: "agf", Model: statistics.Model{Name: "toy"},
		Layers: []statistics.Layer{
			{Name: "v", Group: "head_dim", Rounds: true, Units: 8, UnitWidth: 1, Parts: 2},
		},
		Score: []float64{1, 2, 3, 4, 80, 70, 60, 50},
	}
	for ratio, want := range map[float64][]bool{
		0.25: {false, false, true, true, true, true, false, false},
		0.6:  {false, false, true, true, true, true, false, false},
	} {
		if p, _ := solveOK(t, s, Request{PruningRatio: ratio, RoundTo: 2}); !slices.Equal(p.Keep,
			want) {
			t.Errorf("ratio %v: %v", ratio, p.Keep)
		}
	}
	if p, _ := solveOK(t, s, Request{PruningRatio: 0.25}); !slices.Equal(p.Keep,
		[]bool{false, true, true, true, true, true, true, false}) {
		t.Errorf("without rounding: %v", p.Keep)
	}
}

// Two layers of equal width: b's importance is concentrated in one unit, a's is spread, so a keeps
// more. The magnitude of b's scores changes nothing, and the ranking scores decide which units are
// kept.
func TestWidthsByHand(t *testing.T) {
	layer := func(name string) statistics.Layer {
		return statistics.Layer{
			Name: name, Group: "mlp", Rounds: true, Units: 4, UnitWidth: 1, Parts: 1, UnitMACs: 1,
		}
	}
	s := criteria.Scores{
		Criterion: "agf", Model: statistics.Model{Name: "toy", MACs: 10},
		Layers: []statistics.Layer{layer("a"), layer("b")},
		Score:  []float64{1, 2, 3, 4, 4, 3, 2, 1},
	}
	for _, scale := range []float64{1, 1000} {
		widths := s
		widths.Criterion = "variance"
		widths.Score = []float64{3, 3, 2, 2, 37 * scale, scale, scale, scale}
		p, rep := solveWith(t, s, &widths, Request{PruningRatio: 0.5})
		if !slices.Equal(keptOf(rep), []int{3, 1}) ||
			!slices.Equal(p.Keep, []bool{false, true, true, true, true, false, false, false}) {
			t.Errorf("kept %v: %v", keptOf(rep), p.Keep)
		}
		if p.Criterion != "agf" || p.Request.Widths != "variance" ||
			!slices.Equal(p.Score, s.Score) {
			t.Errorf("the plan is by %s with widths by %s and scores %v", p.Criterion,
				p.Request.Widths, p.Score)
		}
	}
}

func TestWidthsOfOtherLayersAreRefused(t *testing.T) {
	other := vit("variance", 2)
	_, _, err := solveMaybe(vit("agf", 1), &other, Request{PruningRatio: 0.5})
	if fault.CodeOf(err) != fault.Shape {
		t.Errorf("got %v", err)
	}
	nan := vit("variance", 1)
	nan.Score[3] = math.NaN()
	_, _, err = solveMaybe(vit("agf", 1), &nan, Request{PruningRatio: 0.5})
	if fault.CodeOf(err) != fault.Nonfinite {
		t.Errorf("got %v", err)
	}
}

func TestPlansAreValidated(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Plan)
		code   fault.Code
	}{
		"short":   {func(p *Plan) { p.Keep = p.Keep[1:] }, fault.Shape},
		"scores":  {func(p *Plan) { p.Score = nil }, fault.Shape},
		"nothing": {func(p *Plan) { clear(p.Keep[:4]) }, fault.Value},
		"parts": {func(p *Plan) {
			p.Layers[1].Parts = 2
			p.Keep[4], p.Keep[12] = !p.Keep[4], p.Keep[4]
		}, fault.Value},
		"infinite": {func(p *Plan) { p.Score[0] = math.Inf(1) }, fault.Nonfinite},
	} {
		p, _ := solveOK(t, vit("agf", 1), Request{PruningRatio: 0.5})
		c.change(&p)
		if err := p.Validate(); err == nil || fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v, want code %s", name, err, c.code)
		}
	}
}

// large has a million units in 250 layers.
func large(seed uint64) criteria.Scores {
	r := rand.New(rand.NewPCG(seed, 2))
	s := criteria.Scores{
		Criterion: "agf_relative", Model: statistics.Model{Name: "large", MACs: 1 << 40},
	}
	for i := range 250 {
		s.Layers = append(s.Layers, statistics.Layer{
			Name: "blocks." + string(rune('a'+i)), Group: "mlp", Rounds: true, Units: 4000,
			UnitWidth: 1,
			Parts:     1, UnitMACs: 1000,
		})
	}
	for range 1_000_000 {
		s.Score = append(s.Score, r.Float64())
	}
	return s
}

// A million units are planned in less than a tenth of a second (see the benchmark). The limit is
// for a busy machine under the race detector; it excludes only an algorithm that sorts all units
// together.
func TestAMillionUnitsAreQuick(t *testing.T) {
	s, widths := large(1), large(2)
	start := time.Now()
	_, rep := solveWith(t, s, &widths, Request{MACs: "0.9995", RoundTo: 8})
	took := time.Since(start)
	t.Logf("took %v, miss %.2g", took, rep.Miss)
	if took > 10*time.Second {
		t.Fatalf("took %v", took)
	}
}

func BenchmarkSolve(b *testing.B) {
	s, widths := large(1), large(2)
	for name, c := range map[string]struct {
		widths  *criteria.Scores
		request Request
	}{
		"uniform":        {nil, Request{MACs: "0.9995"}},
		"own widths":     {&s, Request{MACs: "0.9995"}},
		"widths":         {&widths, Request{MACs: "0.9995"}},
		"widths rounded": {&widths, Request{MACs: "0.9995", RoundTo: 8}},
		"joint":          {&widths, Request{MACs: "0.9995", Joint: true}},
		"ratio":          {&widths, Request{PruningRatio: 0.5}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				solveWith(b, s, c.widths, c.request)
			}
		})
	}
}
