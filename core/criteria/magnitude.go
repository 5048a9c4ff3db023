package criteria

import (
	"math"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// magnitude is the Euclidean norm of the weights attached to a unit.
var magnitude = criterion{
	Description{Name: "magnitude", Doc: "Euclidean norm of the unit's weights; ranks inside a layer"},
	scoreMagnitude,
}

func scoreMagnitude(score []float64, l statistics.Layer, offset int, t statistics.Table, _ uint64) error {
	for u := range score {
		if t.Weights[offset+u] == 0 {
			return fault.New(fault.Layer, "unit %d of layer %q has no weights recorded, which magnitude needs; add the layer's weights while calibrating or choose another criterion", u, l.Name)
		}
		score[u] = math.Sqrt(t.SumW2[offset+u])
	}
	return nil
}
