package diagnostics_test

import (
	"fmt"

	"agflow/core/criteria"
	"agflow/core/diagnostics"
	"agflow/core/statistics"
)

// One unit of five carries most of the signal.
func ExampleDynamicRange() {
	r, err := diagnostics.DynamicRange([]float64{0.5, 12, -1, 2, 1})
	fmt.Println("max", r.Max, "median", r.Median, "range", *r.MaxOverMedian, err)
	// Output: max 12 median 1 range 12 <nil>
}

// Half of four channels is kept: one of the two is common. The order of all four is close.
func ExampleAgreement() {
	layers := []statistics.Layer{
		{Name: "blocks.0.mlp", Group: "mlp", Rounds: true, Units: 4, UnitWidth: 1, Parts: 1},
	}
	agf := criteria.Scores{Criterion: "agf", Layers: layers, Score: []float64{1, 2, 3, 4}}
	taylor := criteria.Scores{Criterion: "taylor", Layers: layers, Score: []float64{1, 3, 2, 4}}
	report, err := diagnostics.Agreement(agf, taylor, 0.5)
	m := report.Overall
	fmt.Printf("Jaccard %.2f (by chance %.2f), Spearman %.2f, %v\n", m.Jaccard, m.Chance,
		*m.Spearman, err)
	// Output: Jaccard 0.33 (by chance 0.33), Spearman 0.80, <nil>
}

// The criterion beats all five random prunings, which is not significant: nineteen are needed at 95
// %.
func ExampleAgainstRandom() {
	v, err := diagnostics.AgainstRandom(diagnostics.TrialRequest{
		Images: 1000, Correct: 652, RandomCorrect: []int64{640, 631, 651, 644, 638},
		Confidence: 0.95,
	})
	fmt.Printf("%s: p = %.3f of %d draws, %d needed, %v\n", v.Verdict, v.PValue, v.Draws,
		v.NeededDraws, err)
	// Output: insufficient draws: p = 0.167 of 5 draws, 19 needed, <nil>
}
