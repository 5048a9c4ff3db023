package criteria

import (
	"math"

	"agflow/core/statistics"
)

// taylor is the first-order change of the loss when a unit's activation is set to 0 (Molchanov et
// al., arXiv 1611.06440): |Σ y·∂L/∂y| / rows. The absolute value is taken once, after the sum over
// all rows, so signs cancel, unlike in agf; the paper takes it per image.
var taylor = criterion{
	Description: Description{
		Name: "taylor",
		Doc: "|sum of activation x gradient| per row (arXiv 1611.06440), signs cancel; " +
			"ranks inside a layer",
	},
	score: scoreTaylor,
}

func scoreTaylor(score []float64, _ statistics.Layer, offset int, t statistics.Table, _ uint64) {
	for u := range score {
		score[u] = math.Abs(t.SumYG[offset+u]) / float64(t.Rows[offset+u])
	}
}
