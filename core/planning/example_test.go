package planning_test

import (
	"fmt"
	"strings"

	"agflow/core/criteria"
	"agflow/core/planning"
	"agflow/core/statistics"
)

func toyScores() criteria.Scores {
	return criteria.Scores{
		Model: statistics.Model{Name: "toy", MACs: 100}, Criterion: "agf",
		Layers: []statistics.Layer{{
			Name: "blocks.0.mlp", Group: "mlp", Rounds: true,
			Units: 6, UnitWidth: 1, Parts: 1, UnitMACs: 10,
		}},
		Score: []float64{0.3, 0.9, 0.1, 0.5, 0.7, 0.2},
	}
}

// Six channels of 10 MACs in a model of 100: 70 % of the MACs leave room for three, which round_to
// 2 makes two.
func Example() {
	request := planning.Request{MACs: "0.7", RoundTo: 2}
	plan, report, err := planning.Solve(planning.Input{Scores: toyScores()}, request)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(plan.Keep)
	fmt.Printf("%d of %d MACs, kept utility %.2f, price of rounding %.2f\n", report.MACs,
		report.DenseMACs, report.KeptUtility, report.RoundingPrice)
	// Output:
	// [false true false false true false]
	// 60 of 100 MACs, kept utility 0.59, price of rounding 0.19
}

// A budget that no plan can meet is refused with the least that can be reached.
func ExampleSolve_unreachable() {
	_, _, err := planning.Solve(planning.Input{Scores: toyScores()}, planning.Request{MACs: "0.4"})
	fmt.Println(strings.NewReplacer(", but ", ",\nbut ", "; ", ";\n").Replace(err.Error()))
	// Output:
	// agflow:budget: macs "0.4" allows 40 MACs,
	// but pruning these layers reaches 50 at the least (0.5000 of the dense model's 100);
	// raise the budget, prune more groups or ignore fewer layers
}

// The two best of five scores; of the two zeros the first.
func ExampleTopK() {
	top, err := planning.TopK([]float64{-1, 0, 3, 0, -2}, 2, 1)
	fmt.Printf("%05b %v\n", top[0], err)
	// Output: 00110 <nil>
}
