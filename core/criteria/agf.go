package criteria

import "agflow/core/statistics"

// agf is the feature-space utility of arXiv 2603.12354: U = E|y·∂L/∂y|, the absolute value taken
// element by element. Raw values fall with depth by an order of magnitude and more, so they rank
// units inside a layer only.
var agf = criterion{
	Description: Description{
		Name: "agf",
		Doc:  "mean |activation x gradient| per row (arXiv 2603.12354); ranks inside a layer",
	},
	score: scoreAGF,
}

func scoreAGF(score []float64, _ statistics.Layer, offset int, t statistics.Table, _ uint64) {
	for u := range score {
		score[u] = t.SumAbsYG[offset+u] / float64(t.Rows[offset+u])
	}
}
