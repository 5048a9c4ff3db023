package planning

import (
	"testing"

	"agflow/core/statistics"
)

// measured is a table of one layer of two channels, with weights that read them.
func measured() statistics.Table {
	layer := statistics.Layer{
		Name: "mlp", Group: "mlp", Rounds: true, Units: 2, UnitWidth: 1, Parts: 1, UnitMACs: 1,
	}
	return statistics.Table{
		Layers: []statistics.Layer{layer},
		Rows:   []int64{4, 4}, Samples: []int64{4, 4}, Batches: []int64{1, 1},
		SumAbsYG: []float64{1, 2}, SumYG: []float64{1, 2}, SumYG2: []float64{1, 4},
		SumAbsY: []float64{1, 3}, SumY: []float64{1, 3}, SumY2: []float64{2, 5},
		SumG2: []float64{1, 1}, MaxAbsYG: []float64{1, 2},
		Weights: []int64{3, 3}, SumAbsW: []float64{1, 1}, SumW2: []float64{1, 1},
		ReaderWeights: []int64{3, 3}, SumAbsReader: []float64{1, 2},
		SumReader2: []float64{1, 3}, SumRelativeReader: []float64{1, 1},
		WeightGradients: []int64{0, 0}, SumWG: []float64{0, 0},
	}
}

func TestInputOf(t *testing.T) {
	unread := measured()
	unread.ReaderWeights = []int64{0, 0}
	for name, c := range map[string]struct {
		table  statistics.Table
		widths string
		want   string // the criterion of the widths, "" for uniform ones
	}{
		"default":                      {measured(), "", "variance_weighted"},
		"without weights that read":    {unread, "", "agf"},
		"named":                        {measured(), "magnitude", "magnitude"},
		"uniform, whatever was read":   {measured(), Uniform, ""},
		"uniform, without such a read": {unread, Uniform, ""},
	} {
		from, err := InputOf(c.table, "agf", c.widths, 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		found := ""
		if from.Widths != nil {
			found = from.Widths.Criterion
		}
		if from.Scores.Criterion != "agf" || found != c.want {
			t.Errorf("%s: scores by %s, widths by %q, want %q",
				name, from.Scores.Criterion, found, c.want)
		}
	}
}
