package statistics_test

import (
	"fmt"

	"agflow/core/statistics"
	"agflow/core/tensor"
)

// Two token rows of an MLP with two hidden channels: the signed sum of the first cancels, the
// utility does not.
func Example() {
	layers := []statistics.Layer{
		{Name: "blocks.0.mlp", Group: "mlp", Rounds: true, Units: 2, UnitWidth: 1, Parts: 1},
	}
	accumulator, err := statistics.NewAccumulator(statistics.Model{Name: "toy"}, layers, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	yBTC, _ := tensor.NewView([]float32{1, 2, 1, 0.5}, 2, 2)
	gBTC, _ := tensor.NewView([]float32{3, 1, -3, 2}, 2, 2)
	if err := accumulator.Add(0, 1, yBTC, gBTC); err != nil {
		fmt.Println(err)
		return
	}
	table := accumulator.Table()
	fmt.Println("rows", table.Rows, "Σ|yg|", table.SumAbsYG, "Σyg", table.SumYG)
	// Output: rows [2 2] Σ|yg| [6 3] Σyg [0 3]
}

func ExampleMerge() {
	layers := []statistics.Layer{
		{Name: "blocks.0.mlp", Group: "mlp", Rounds: true, Units: 1, UnitWidth: 1, Parts: 1},
	}
	var shards []statistics.Table
	for _, value := range []float32{2, -3} {
		accumulator, _ := statistics.NewAccumulator(statistics.Model{Name: "toy"}, layers, 1)
		v, _ := tensor.NewView([]float32{value}, 1, 1)
		if err := accumulator.Add(0, 1, v, v); err != nil {
			fmt.Println(err)
			return
		}
		shards = append(shards, accumulator.Table())
	}
	table, err := statistics.Merge(shards...)
	fmt.Println(table.Samples, table.SumAbsYG, table.MaxAbsYG, err)
	// Output: [2] [13] [9] <nil>
}
