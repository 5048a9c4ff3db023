package criteria_test

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

// toy has two layers whose sums give scores with few digits.
func toy() statistics.Table {
	return statistics.Table{
		Model: statistics.Model{Name: "toy", MACs: 100, Params: 10},
		Layers: []statistics.Layer{
			{Name: "blocks.0.mlp", Group: "mlp", Rounds: true, Units: 3, UnitWidth: 1, Parts: 1},
			{Name: "blocks.1.attn", Group: "heads", Units: 2, UnitWidth: 4, Parts: 1},
		},
		Rows: []int64{4, 4, 4, 8, 8}, Samples: []int64{2, 2, 2, 4, 4}, Batches: []int64{
			1, 1, 1, 2, 2,
		},
		SumAbsYG: []float64{4, 8, 12, 0.8, 2.4},
		SumYG:    []float64{-4, 2, 0, 8, -16},
		SumYG2:   []float64{4, 8, 0, 16, 8},
		SumAbsY:  []float64{4, 8, 12, 16, 24},
		SumY:     []float64{4, 0, 16, 32, -16},
		SumY2:    []float64{64, 4, 64, 128, 8},
		SumG2:    make([]float64, 5),
		MaxAbsYG: make([]float64, 5),

		Weights: []int64{4, 4, 4, 32, 32}, SumAbsW: []float64{4, 5, 2, 20, 0}, SumW2: []float64{
			9, 16, 2.25, 100, 0,
		},
		ReaderWeights: []int64{2, 2, 2, 16, 16}, SumAbsReader: []float64{
			1, 2, 0.5, 8, 3,
		}, SumReader2: []float64{2, 3, 5, 0.5, 7},
		SumRelativeReader: []float64{0.5, 1.5, 1, 2, 0.25},
		WeightGradients:   []int64{4, 4, 4, 32, 32}, SumWG: []float64{-2, 6, 0, 8, -4},
		Metadata: map[string]string{"agflow.seed": "7"},
	}
}

func score(t *testing.T, name string, seed uint64, table statistics.Table) criteria.Scores {
	t.Helper()
	s, err := criteria.Score(name, seed, table)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The scores equal values computed by hand.
func TestScoresByHand(t *testing.T) {
	for name, want := range map[string][]float64{
		"agf":           {1, 2, 3, 0.1, 0.3},     // sum / rows
		"agf_relative":  {0.5, 1, 1.5, 0.5, 1.5}, // means 2 and 0.2
		"taylor":        {1, 0.5, 0, 1, 2},       // |sum| / rows
		"taylor_weight": {1, 3, 0, 2, 1},         // |sum| / images
		"fisher":        {1, 2, 0, 2, 1},         // sum / rows
		"activation":    {1, 2, 3, 2, 3},         // sum / rows
		"wanda":         {4, 2, 2, 32, 3},        // column sum times the norms 4, 1, 4, 4, 1
		// relative sum plus width 1 or 4, times the roots of the norms
		"ria":               {3, 2.5, 4, 12, 4.25},
		"variance":          {15, 1, 0, 3, 0},   // over 4 elements of a channel, 32 of a head
		"variance_weighted": {30, 3, 0, 1.5, 0}, // that times the sum of squares
		"magnitude":         {3, 4, 1.5, 10, 0}, // root of the sum of squares
		"magnitude_l1":      {4, 5, 2, 20, 0},   // sum
	} {
		got := score(t, name, 0, toy())
		for u := range want {
			if math.Abs(got.Score[u]-want[u]) > 1e-15 {
				t.Errorf("%s, unit %d: got %v, want %v", name, u, got.Score[u], want[u])
			}
		}
	}
}

// Scores carry the identity of the table and share no memory with it.
func TestScoresKeepTheTablesIdentity(t *testing.T) {
	table := toy()
	s := score(t, "agf", 3, table)
	if s.Model != table.Model || !reflect.DeepEqual(s.Layers, table.Layers) ||
		s.Criterion != "agf" || s.Seed != 3 || s.Metadata["agflow.seed"] != "7" {
		t.Fatalf("got %+v", s)
	}
	s.Layers[0].Name, s.Metadata["agflow.seed"] = "changed", "changed"
	if !reflect.DeepEqual(table, toy()) {
		t.Fatal("the table was changed")
	}
}

func TestALayerWithoutGradientScoresZero(t *testing.T) {
	table := toy()
	table.SumAbsYG[3], table.SumAbsYG[4] = 0, 0
	if s := score(t, "agf_relative", 0, table); s.Score[3] != 0 || s.Score[4] != 0 ||
		s.Score[2] != 1.5 {
		t.Fatalf("got %v", s.Score)
	}
}

// Rounding can make the difference of a constant unit's sums negative; its variance is 0 all the
// same.
func TestVarianceIsNeverNegative(t *testing.T) {
	table := toy()
	table.SumY[0], table.SumY2[0] = 4*0.1, 4*0.1*0.1 // four rows of 0.1
	table.SumY2[0] = math.Nextafter(table.SumY2[0], 0)
	if s := score(t, "variance", 0, table); s.Score[0] != 0 {
		t.Fatalf("got %v", s.Score[0])
	}
}

// A criterion reads the record that it declares and no other: without the other records it gives
// the same scores.
func TestCriteriaNeedWhatTheyDeclare(t *testing.T) {
	for _, name := range criteria.Names() {
		want := score(t, name, 0, toy()).Score
		bare := toy()
		none := make([]int64, 5)
		switch name {
		case "magnitude", "magnitude_l1":
			bare.ReaderWeights, bare.WeightGradients = none, none
		case "taylor_weight":
			bare.Weights, bare.ReaderWeights = none, none
		case "wanda", "ria", "variance_weighted":
			bare.Weights, bare.WeightGradients = none, none
		default:
			bare.Weights, bare.ReaderWeights, bare.WeightGradients = none, none, none
		}
		if got := score(t, name, 0, bare).Score; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// A layer's random scores depend on the seed and its own name alone: not on the order of layers,
// nor on the sums.
func TestRandomIsIndependentOfLayerOrder(t *testing.T) {
	table := toy()
	first := score(t, "random", 5, table)
	swapped := toy()
	slices.Reverse(swapped.Layers)
	swapped.Rows = []int64{9, 9, 9, 9, 9}
	second := score(t, "random", 5, swapped)
	if !slices.Equal(first.Score[:3], second.Score[2:]) ||
		!slices.Equal(first.Score[3:], second.Score[:2]) {
		t.Fatalf("%v against %v", first.Score, second.Score)
	}
	if again := score(t, "random", 5, table); !slices.Equal(first.Score, again.Score) {
		t.Fatal("equal seeds gave different scores")
	}
	if other := score(t, "random", 6, table); slices.Equal(first.Score, other.Score) {
		t.Fatal("different seeds gave equal scores")
	}
}

// The bits of random are frozen: plans of old seeds must stay reproducible.
func TestRandomIsFrozen(t *testing.T) {
	want := []float64{
		0.47473162847571637, 0.9603263189792274, 0.800093632776333, 0.9676466840123705,
		0.42061175641401405,
	}
	if got := score(t, "random", 5, toy()).Score; !slices.Equal(got, want) {
		t.Fatalf("got %#v", got)
	}
}

// Random scores are uniform in [0, 1).
func TestRandomIsUniform(t *testing.T) {
	const units = 100_000
	layers := []statistics.Layer{
		{Name: "wide", Group: "mlp", Rounds: true, Units: units, UnitWidth: 1, Parts: 1},
	}
	ones, zeros := slices.Repeat([]int64{1}, units), make([]float64, units)
	table := statistics.Table{
		Layers: layers, Rows: ones, Samples: ones, Batches: ones, Weights: ones,
		ReaderWeights: ones, WeightGradients: ones,
		SumAbsYG: zeros, SumYG: zeros, SumYG2: zeros, SumAbsY: zeros, SumY: zeros, SumY2: zeros,
		SumG2: zeros, MaxAbsYG: zeros,
		SumAbsW: zeros, SumW2: zeros, SumAbsReader: zeros, SumReader2: zeros,
		SumRelativeReader: zeros, SumWG: zeros,
	}
	var tenths [10]int
	for _, v := range score(t, "random", 1, table).Score {
		tenths[int(v*10)]++
	}
	for k, n := range tenths {
		if math.Abs(float64(n)-units/10) > 5*math.Sqrt(units*0.09) {
			t.Errorf("tenth %d has %d of %d", k, n, units)
		}
	}
}

const names = "agf, agf_relative, taylor, taylor_weight, fisher, activation, wanda, ria, " +
	"variance, variance_weighted, magnitude, magnitude_l1, random"

func TestRegistry(t *testing.T) {
	if want := strings.Split(names, ", "); !slices.Equal(criteria.Names(), want) {
		t.Fatalf("got %v", criteria.Names())
	}
	comparable := map[string]bool{"agf_relative": true, "random": true}
	for _, name := range criteria.Names() {
		d, err := criteria.Describe(name)
		if err != nil || d.Name != name || d.Doc == "" || d.Comparable != comparable[name] {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

// The function is long because of its table of cases.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		criterion string
		change    func(*statistics.Table)
		code      fault.Code
		says      string
	}{
		"unknown": {"agfs", func(*statistics.Table) {}, fault.Value, "the criteria are " + names},
		"no rows": {
			"agf", func(s *statistics.Table) { s.Rows[4] = 0 }, fault.Empty,
			`unit 1 of layer "blocks.1.attn" has seen no rows`,
		},
		"weights": {
			"magnitude", func(s *statistics.Table) { s.Weights[3] = 0 }, fault.Layer,
			`unit 0 of layer "blocks.1.attn" has no weights`,
		},
		"l1": {
			"magnitude_l1", func(s *statistics.Table) { s.Weights[0] = 0 }, fault.Layer,
			"which magnitude_l1 needs; add the layer's weights",
		},
		"gradients": {
			"taylor_weight", func(s *statistics.Table) { s.WeightGradients[4] = 0 }, fault.Layer,
			"no weight gradients recorded, which taylor_weight needs; " +
				"calibrate with weight_gradients=True",
		},
		"wanda": {
			"wanda", func(s *statistics.Table) { s.ReaderWeights[1] = 0 }, fault.Layer,
			`unit 1 of layer "blocks.0.mlp" has no weights that read it recorded, which wanda ` +
				`needs`,
		},
		"ria": {
			"ria", func(s *statistics.Table) { s.ReaderWeights[1] = 0 }, fault.Layer,
			"which ria needs",
		},
		"flap": {
			"variance_weighted", func(s *statistics.Table) { s.ReaderWeights[1] = 0 }, fault.Layer,
			"which variance_weighted needs",
		},
		"no images": {
			"taylor_weight", func(s *statistics.Table) { s.Samples[3] = 0 }, fault.Nonfinite,
			"the taylor_weight score is +Inf",
		},
		"short": {"agf", func(s *statistics.Table) { s.SumY = nil }, fault.Shape, "sum_y"},
		"no layers": {
			"agf", func(s *statistics.Table) { *s = statistics.Table{} }, fault.Empty, "no layers",
		},
		"corrupt": {
			"magnitude", func(s *statistics.Table) { s.SumW2[0] = -1 }, fault.Nonfinite,
			"the magnitude score is NaN",
		},
	} {
		table := toy()
		c.change(&table)
		_, err := criteria.Score(c.criterion, 0, table)
		if err == nil || fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := criteria.Describe("agfs"); fault.CodeOf(err) != fault.Value || err == nil {
		t.Errorf("Describe: got %v", err)
	}
}

func TestScoresAreValidated(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*criteria.Scores)
		code   fault.Code
	}{
		"layers": {func(s *criteria.Scores) { s.Layers = nil }, fault.Empty},
		"short":  {func(s *criteria.Scores) { s.Score = s.Score[1:] }, fault.Shape},
		"NaN":    {func(s *criteria.Scores) { s.Score[1] = math.NaN() }, fault.Nonfinite},
		"Inf":    {func(s *criteria.Scores) { s.Score[1] = math.Inf(-1) }, fault.Nonfinite},
	} {
		s := score(t, "agf", 0, toy())
		c.change(&s)
		if err := s.Validate(); err == nil || fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
