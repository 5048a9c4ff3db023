package criteria

import (
	"math"

	"agflow/core/statistics"
)

// taylorWeight is the first-order change of the loss when a unit's weights are set to 0 (Molchanov
// et al., arXiv 1906.10771): |Σ w·∂L/∂w| / images, over all weights attached to the unit; the paper
// squares it, which gives the same ranking. It needs weight gradients recorded.
var taylorWeight = criterion{
	Description: Description{
		Name: "taylor_weight",
		Doc: "|sum of weight x gradient| per image (arXiv 1906.10771); " +
			"needs weight gradients; ranks inside a layer",
	},
	needs: &weightGradients,
	score: scoreTaylorWeight,
}

func scoreTaylorWeight(
	score []float64, _ statistics.Layer, offset int, t statistics.Table, _ uint64,
) {
	for u := range score {
		score[u] = math.Abs(t.SumWG[offset+u]) / float64(t.Samples[offset+u])
	}
}
