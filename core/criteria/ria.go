package criteria

import (
	"math"

	"agflow/core/statistics"
)

// ria is relative importance and activations (Zhang et al., "Plug-and-Play: An Efficient
// Post-training Pruning Method for Large Language Models", ICLR 2024) with the paper's exponent a =
// 1/2, summed over the weights that read the unit:
//
//	Σ_i (|w_ij| / Σ_i' |w_i'j| + |w_ij| / Σ_j' |w_ij'|) · sqrt(Σ y_j² / rows)^a
//
// The first share adds up to 1 a channel, so to the unit's width. The channels of a head share one
// norm. It needs reading weights recorded.
var ria = criterion{
	Description: Description{
		Name: "ria",
		Doc: "relative |reading weight| x root of the root mean square activation " +
			"(RIA, ICLR 2024); ranks inside a layer",
	},
	needs: &readerWeights,
	score: scoreRIA,
}

func scoreRIA(score []float64, l statistics.Layer, offset int, t statistics.Table, _ uint64) {
	for u := range score {
		norm := math.Sqrt(t.SumY2[offset+u] / float64(t.Rows[offset+u]))
		score[u] = (t.SumRelativeReader[offset+u] + float64(l.UnitWidth)) * math.Sqrt(norm)
	}
}
