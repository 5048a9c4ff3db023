package criteria

import "agflow/core/statistics"

// agfRelative is agf divided by its mean over the layer, which removes the decrease with depth: 1
// is an average unit of any layer. All units of a layer that no gradient reaches score 0.
var agfRelative = criterion{
	Description: Description{
		Name: "agf_relative", Doc: "agf divided by its layer's mean; comparable across layers",
		Comparable: true,
	},
	score: scoreAGFRelative,
}

func scoreAGFRelative(
	score []float64, l statistics.Layer, offset int, t statistics.Table, seed uint64,
) {
	scoreAGF(score, l, offset, t, seed)
	mean := 0.0
	for _, s := range score {
		mean += s
	}
	mean /= float64(len(score))
	if mean == 0 {
		return
	}
	for u := range score {
		score[u] /= mean
	}
}
