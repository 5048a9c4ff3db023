package criteria

import (
	"math"

	"agflow/core/statistics"
)

// wanda is the weight times the norm of its input (Sun et al., arXiv 2306.11695), summed over the
// weights that read the unit: Σ_i |w_ij| · sqrt(Σ y_j² / rows). The paper prunes single weights by
// the terms; the sum over the column makes a score of a unit. The channels of a head share their
// weights and one norm. It needs reading weights recorded.
var wanda = criterion{
	Description: Description{
		Name: "wanda",
		Doc: "sum of |reading weight| x root mean square activation (arXiv 2306.11695); " +
			"ranks inside a layer",
	},
	needs: &readerWeights,
	score: scoreWanda,
}

func scoreWanda(score []float64, _ statistics.Layer, offset int, t statistics.Table, _ uint64) {
	for u := range score {
		score[u] = t.SumAbsReader[offset+u] * math.Sqrt(t.SumY2[offset+u]/float64(t.Rows[offset+u]))
	}
}
