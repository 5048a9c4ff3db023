package diagnostics

import (
	"cmp"

	"agflow/core/cancel"
)

// meanRanks returns the rank of each value, 1 for the least; equal values share the mean of their
// ranks.
func meanRanks(values []float64) []float64 {
	type placed struct {
		value float64
		index int
	}
	order := make([]placed, len(values))
	for i, v := range values {
		order[i] = placed{v, i}
	}
	cancel.SortFunc(order, func(a, b placed) int { return cmp.Compare(a.value, b.value) })
	ranks := make([]float64, len(values))
	for first := 0; first < len(order); {
		next := first + 1
		for next < len(order) && order[next].value == order[first].value {
			next++
		}
		for _, p := range order[first:next] {
			ranks[p.index] = float64(first+1+next) / 2
		}
		first = next
	}
	return ranks
}
