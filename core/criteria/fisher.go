package criteria

import "agflow/core/statistics"

// fisher is the second-order change of the loss when a unit's activation is set to 0, with the
// empirical Fisher information in place of the curvature (Theis et al., arXiv 1801.05787): Σ
// (y·∂L/∂y)² / rows. The paper's factor 1/2 does not change the ranking; each element is squared
// alone, where the paper first sums those of an image.
var fisher = criterion{
	Description: Description{
		Name: "fisher",
		Doc: "mean (activation x gradient) squared per row (arXiv 1801.05787); " +
			"ranks inside a layer",
	},
	score: scoreFisher,
}

func scoreFisher(score []float64, _ statistics.Layer, offset int, t statistics.Table, _ uint64) {
	for u := range score {
		score[u] = t.SumYG2[offset+u] / float64(t.Rows[offset+u])
	}
}
