package planning

import (
	"math"
	"slices"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// maxCost is the greatest cost of a model: float64 holds all whole numbers up to it.
const maxCost = 1 << 53

// pricing computes the costs of a model from the number of units that each layer keeps, in the
// order of the layers.
type pricing struct {
	macs, params func(kept []int) int64
	latency      func(kept []int) float64 // ms; nil without a latency table
}

// Price has the costs of a model. LatencyMS, of a batch as the latency table was measured, is 0
// without a table; MACs and parameters are 0 when those of the dense model were not recorded.
type Price struct {
	MACs      int64   `json:"macs"`
	Params    int64   `json:"params"`
	LatencyMS float64 `json:"latency_ms,omitempty"`
}

func (p pricing) of(kept []int) Price {
	found := Price{MACs: p.macs(kept), Params: p.params(kept)}
	if p.latency != nil {
		found.LatencyMS = p.latency(kept)
	}
	return found
}

// pricingOf returns the pricing by the costs in the scores' metadata, or, without any, by what the
// removal of each unit saves.
func pricingOf(
	model statistics.Model, layers []statistics.Layer, metadata map[string]string,
	table *LatencyTable,
) (pricing, error) {
	text, known := metadata[CostsKey]
	if !known {
		if table != nil {
			return pricing{}, fault.New(fault.Value,
				"latencies need the costs of the model's products, "+
					"and the metadata of these scores has no %s; "+
					"make the statistics again, with a model whose adapter reports its costs",
				CostsKey)
		}
		return additive(model, layers)
	}
	costs, err := parseCosts(text)
	if err != nil {
		return pricing{}, err
	}
	if err := costs.check(model, layers); err != nil {
		return pricing{}, err
	}
	p := pricing{
		macs:   func(kept []int) int64 { return costs.macs(costs.counts(layers, kept)) },
		params: func(kept []int) int64 { return costs.params(costs.counts(layers, kept)) },
	}
	if table != nil {
		latency, err := table.bind(costs)
		if err != nil {
			return pricing{}, err
		}
		p.latency = func(kept []int) float64 { return latency(costs.counts(layers, kept)) }
	}
	return p, nil
}

// additive returns the pricing by what each unit alone saves. It is exact as long as no unit's
// saving depends on another's. The layers of groups that overlap save more than the model costs,
// and are refused.
func additive(model statistics.Model, layers []statistics.Layer) (pricing, error) {
	macs, err := difference(model, "MACs", model.MACs, layers,
		func(l statistics.Layer) int64 { return l.UnitMACs })
	if err != nil {
		return pricing{}, err
	}
	params, err := difference(model, "parameters", model.Params, layers,
		func(l statistics.Layer) int64 { return l.UnitParams })
	return pricing{macs: macs, params: params}, err
}

// difference returns the function that computes a dense total minus what the removed units save. It
// refuses a total below what all units save together; a dense total of 0 was not recorded, and
// stays 0.
func difference(
	model statistics.Model, what string, dense int64, layers []statistics.Layer,
	unit func(statistics.Layer) int64,
) (func([]int) int64, error) {
	if dense < 0 || dense > maxCost {
		return nil, fault.New(fault.Value,
			"model %q has %d %s; record the %s of the dense model for one image", model.Name, dense,
			what, what)
	}
	if dense == 0 {
		return func([]int) int64 { return 0 }, nil
	}
	rest := dense
	for _, l := range layers {
		if unit(l) > rest/int64(l.Units) {
			return nil, fault.New(fault.Value,
				"model %q has %d %s, less than its layers up to %q have together; "+
					"record the %s of the whole dense model for one image, "+
					"and %s where groups overlap, as embed and mlp do",
				model.Name, dense, what, l.Name, what, CostsKey)
		}
		rest -= int64(l.Units) * unit(l)
	}
	return func(kept []int) int64 {
		total := dense
		for i, l := range layers {
			total -= int64(l.Units-kept[i]) * unit(l)
		}
		return total
	}, nil
}

// multiply and add saturate at math.MaxInt64; their operands are not negative.
func multiply(factors ...int64) int64 {
	if slices.Contains(factors, 0) {
		return 0
	}
	product := int64(1)
	for _, factor := range factors {
		if factor > math.MaxInt64/product {
			return math.MaxInt64
		}
		product *= factor
	}
	return product
}

func add(a, b int64) int64 {
	if b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}
