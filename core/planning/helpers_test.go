package planning

import (
	"cmp"
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"agflow/core/criteria"
	"agflow/core/statistics"
)

// vit returns scores of a small Vision Transformer: per block 4 heads of 50 MACs and 16 MLP
// channels of 5.
func vit(criterion string, blocks int) criteria.Scores {
	s := criteria.Scores{
		Criterion: criterion, Model: statistics.Model{Name: "vit", MACs: int64(100 + blocks*280)},
	}
	for b := range blocks {
		s.Layers = append(s.Layers,
			statistics.Layer{
				Name: fmt.Sprintf("blocks.%d.attn", b), Group: "heads", Units: 4,
				UnitWidth: 8, Parts: 1, UnitMACs: 50,
			},
			statistics.Layer{
				Name: fmt.Sprintf("blocks.%d.mlp", b), Group: "mlp", Rounds: true, Units: 16,
				UnitWidth: 1, Parts: 1, UnitMACs: 5,
			})
		for u := range 20 {
			s.Score = append(s.Score, float64((u*7+b*3)%20))
		}
	}
	return s
}

// failer is what tests, benchmarks and rapid's checks have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func solveOK(t failer, s criteria.Scores, r Request) (Plan, Report) {
	t.Helper()
	return solveWith(t, s, nil, r)
}

// solveWith solves with the widths given, or uniform ones.
func solveWith(t failer, s criteria.Scores, widths *criteria.Scores, r Request) (Plan, Report) {
	t.Helper()
	p, rep, err := solveMaybe(s, widths, r)
	if err != nil {
		t.Fatal(err)
	}
	return p, rep
}

func solveMaybe(s criteria.Scores, widths *criteria.Scores, r Request) (Plan, Report, error) {
	return Solve(Input{Scores: s, Widths: widths}, r)
}

// drawWidths draws other scores of the same units, or none.
func drawWidths(t *rapid.T, s criteria.Scores) *criteria.Scores {
	if rapid.Bool().Draw(t, "uniform widths") {
		return nil
	}
	widths := s
	widths.Criterion, widths.Score = "variance", make([]float64, len(s.Score))
	for u := range widths.Score {
		widths.Score[u] = float64(rapid.IntRange(0, 9).Draw(t, "width"))
	}
	return &widths
}

// drawScores draws models of uneven layers, with few distinct scores, so that equal scores are
// common.
func drawScores(t *rapid.T, minUnits int) criteria.Scores {
	s := criteria.Scores{Criterion: "agf_relative", Model: statistics.Model{Name: "drawn"}}
	s.Model.MACs = rapid.Int64Range(1, 1000).Draw(t, "rest")
	groups := []string{"mlp", "heads", "conv"}
	for i := range rapid.IntRange(1, 6).Draw(t, "layers") {
		l := statistics.Layer{
			Name:     fmt.Sprintf("blocks.%d", i),
			Group:    rapid.SampledFrom(groups).Draw(t, "group"),
			Units:    rapid.IntRange(minUnits, 40).Draw(t, "units"),
			UnitMACs: rapid.Int64Range(0, 30).Draw(t, "unit MACs"),
			Rounds:   rapid.Bool().Draw(t, "rounds"),
		}
		l.UnitWidth, l.Parts = 1, 1
		s.Layers = append(s.Layers, l)
		s.Model.MACs += int64(l.Units) * l.UnitMACs
		for range l.Units {
			s.Score = append(s.Score, float64(rapid.IntRange(0, 9).Draw(t, "score"))/4)
		}
	}
	return s
}

// drawRequest draws a request without a budget.
func drawRequest(t *rapid.T) Request {
	return Request{RoundTo: rapid.IntRange(0, 5).Draw(t, "round_to")}
}

// drawBudget draws a ratio, or MACs between the least and the dense model's.
func drawBudget(t *rapid.T, s criteria.Scores, r Request) Request {
	if rapid.Bool().Draw(t, "by ratio") {
		r.PruningRatio = rapid.Float64Range(0.01, 0.99).Draw(t, "ratio")
		return r
	}
	least := s.Model.MACs
	for _, l := range s.Layers {
		least -= int64(l.Units-stepUnits(l, max(r.RoundTo, 1))) * l.UnitMACs
	}
	dense := s.Model.MACs
	r.MACs = fmt.Sprint(rapid.Int64Range(min(max(least, 2), dense), dense).Draw(t, "macs"))
	return r
}

// best returns the k best units of a layer, by the definition: score, then lower index.
func best(score []float64, k int) []bool {
	order := make([]int, len(score))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(score[b], score[a]) })
	keep := make([]bool, len(score))
	for _, u := range order[:k] {
		keep[u] = true
	}
	return keep
}
