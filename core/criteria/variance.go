package criteria

import "agflow/core/statistics"

// variance is the variance of a unit's activation over all rows and its channels: Σ y² / n - (Σ y /
// n)², n = rows · width, and 0 where rounding makes that negative. A bias can replace a unit whose
// activation is constant (arXiv 2507.12988). It needs no gradients.
var variance = criterion{
	Description: Description{
		Name: "variance",
		Doc:  "variance of the activation (arXiv 2507.12988); ranks inside a layer",
	},
	score: scoreVariance,
}

func scoreVariance(score []float64, l statistics.Layer, offset int, t statistics.Table, _ uint64) {
	for u := range score {
		n := float64(t.Rows[offset+u]) * float64(l.UnitWidth)
		mean := t.SumY[offset+u] / n
		score[u] = max(t.SumY2[offset+u]/n-float64(mean*mean), 0)
	}
}
