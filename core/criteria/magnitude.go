package criteria

import (
	"math"

	"agflow/core/statistics"
)

// magnitude is the Euclidean norm of the weights attached to a unit: sqrt(Σ w²). It needs the
// weights recorded.
var magnitude = criterion{
	Description: Description{
		Name: "magnitude", Doc: "Euclidean norm of the unit's weights; ranks inside a layer",
	},
	needs: &weights,
	score: scoreMagnitude,
}

func scoreMagnitude(score []float64, _ statistics.Layer, offset int, t statistics.Table, _ uint64) {
	for u := range score {
		score[u] = math.Sqrt(t.SumW2[offset+u])
	}
}

// magnitudeL1 is the sum of the absolute values of the weights attached to a unit: Σ|w|, which Li
// et al. prune filters by (arXiv 1608.08710). It needs the weights recorded.
var magnitudeL1 = criterion{
	Description: Description{
		Name: "magnitude_l1",
		Doc:  "sum of |weight| over the unit's weights (arXiv 1608.08710); ranks inside a layer",
	},
	needs: &weights,
	score: scoreMagnitudeL1,
}

func scoreMagnitudeL1(
	score []float64, _ statistics.Layer, offset int, t statistics.Table, _ uint64,
) {
	copy(score, t.SumAbsW[offset:])
}
