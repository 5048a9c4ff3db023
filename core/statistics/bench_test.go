package statistics

import (
	"testing"

	"agflow/core/tensor"
)

// BenchmarkSmallAdd is the cost of a call beside its work.
func BenchmarkSmallAdd(b *testing.B) {
	a, err := NewAccumulator(toyModel,
		[]Layer{{Name: "mlp", Group: "mlp", Rounds: true, Units: 8, UnitWidth: 1, Parts: 1}}, 1)
	if err != nil {
		b.Fatal(err)
	}
	y, err := tensor.NewView(make([]float32, 32), 4, 8)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := a.Add(0, 1, y, y); err != nil {
			b.Fatal(err)
		}
	}
}
