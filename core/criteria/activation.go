package criteria

import "agflow/core/statistics"

// activation is the mean absolute activation of a unit: Σ|y| / rows. It needs no gradients.
var activation = criterion{
	Description: Description{
		Name: "activation", Doc: "mean |activation| per row; ranks inside a layer",
	},
	score: scoreActivation,
}

func scoreActivation(
	score []float64, _ statistics.Layer, offset int, t statistics.Table, _ uint64,
) {
	for u := range score {
		score[u] = t.SumAbsY[offset+u] / float64(t.Rows[offset+u])
	}
}
