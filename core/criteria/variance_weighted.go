package criteria

import "agflow/core/statistics"

// varianceWeighted is the fluctuation metric of FLAP (An et al., arXiv 2312.11983): the variance of
// a unit times Σ w² over the weights that read it. It needs reading weights recorded.
var varianceWeighted = criterion{
	Description: Description{
		Name: "variance_weighted",
		Doc: "variance of the activation x sum of reading weight squared (arXiv 2312.11983); " +
			"ranks inside a layer",
	},
	needs: &readerWeights,
	score: scoreVarianceWeighted,
}

func scoreVarianceWeighted(
	score []float64, l statistics.Layer, offset int, t statistics.Table, seed uint64,
) {
	scoreVariance(score, l, offset, t, seed)
	for u := range score {
		score[u] *= t.SumReader2[offset+u]
	}
}
