package planning

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// budget is a request's budget in numbers: a limit on a quantity of the pruned model, or, without a
// quantity, the share of units that is kept.
type budget struct {
	name, unit string // "macs", "MACs"
	asked      string // as the request has it
	limit      float64
	dense      float64
	of         func(kept []int) float64 // nil for a share of units
}

func (b budget) byShare() bool { return b.of == nil }

// budgetOf reads the budget of a normalized request, for a model whose dense price is given.
func budgetOf(r Request, prices pricing, dense Price) (b budget, err error) {
	switch {
	case r.MACs != "":
		b = budget{
			name: "macs", asked: strconv.Quote(r.MACs), unit: "MACs", dense: float64(dense.MACs),
			of: func(kept []int) float64 { return float64(prices.macs(kept)) },
		}
		b.limit, err = b.amount(r.MACs, `"350M" or "1.2G"`)
	case r.Params != "":
		b = budget{
			name: "params", asked: strconv.Quote(r.Params), unit: "parameters",
			dense: float64(dense.Params),
			of:    func(kept []int) float64 { return float64(prices.params(kept)) },
		}
		b.limit, err = b.amount(r.Params, `"900K" or "2.5M"`)
	case r.LatencyMS != 0 && prices.latency == nil:
		err = fault.New(fault.Value,
			"latency_ms is %v and no latency table was given; "+
				"make one with `agflow bench layers` and pass it as latency",
			r.LatencyMS)
	case r.LatencyMS != 0:
		b = budget{
			name: "latency_ms", asked: fmt.Sprint(r.LatencyMS), unit: "ms", limit: r.LatencyMS,
			dense: dense.LatencyMS, of: prices.latency,
		}
	default:
		b = budget{limit: 1 - r.PruningRatio, dense: 1}
	}
	return b, err
}

// unitCost is what removing one unit of a layer saves of the budget's quantity, when all else is
// dense. Latency does not fall evenly with the units, so for it unitCost is the mean over the units
// that can be removed.
func (b budget) unitCost(layers []statistics.Layer, at int) float64 {
	l := layers[at]
	switch b.name {
	case "macs":
		return float64(l.UnitMACs)
	case "params":
		return float64(l.UnitParams)
	case "latency_ms":
		kept := denseUnits(layers)
		if kept[at] = l.Parts; l.MayVanish {
			kept[at] = 0
		}
		return (b.dense - b.of(kept)) / float64(max(l.Units-kept[at], 1))
	}
	return 1
}

// amount reads MACs or parameters. A number without a suffix is a share of the dense model up to 1,
// and an absolute amount above.
func (b budget) amount(text, examples string) (float64, error) {
	if b.dense == 0 {
		return 0, fault.New(fault.Value,
			"%s is %q, but the model's own %s are not recorded; record them, or use pruning_ratio",
			b.name, text, b.unit)
	}
	number, factor := text, 1.0
	if power := strings.IndexByte("KMGT", text[len(text)-1]); power >= 0 {
		number, factor = text[:len(text)-1], math.Pow10(3*(power+1))
	}
	value, err := strconv.ParseFloat(number, 64)
	if number == text && value <= 1 {
		factor = b.dense
	}
	if err != nil || !(value > 0) || value*factor > math.MaxInt64/2 {
		return 0, fault.New(fault.Value,
			"%s is %q; give a share of the dense model above 0 and up to 1 as \"0.35\", "+
				"or the %s of one model and image as %s",
			b.name, text, b.unit, examples)
	}
	limit := math.Floor(value * factor)
	if limit > b.dense {
		return 0, fault.New(fault.Budget,
			"%s is %q, and the dense model has %.0f %s; give less, or a share of it as \"0.35\"",
			b.name, text, b.dense, b.unit)
	}
	return limit, nil
}

// unreachable is the error of a budget below the least possible amount. roundTo is what keeps the
// layers from less, 0 if nothing does.
func (b budget) unreachable(least float64, roundTo int) error {
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
	if b.unit == "ms" {
		number = func(x float64) string { return fmt.Sprintf("%.4g", x) }
	}
	cure := "raise the budget, prune more groups or ignore fewer layers"
	if roundTo > 0 {
		cure = fmt.Sprintf("lower round_to, which is %d, or %s", roundTo, cure)
	}
	return fault.New(fault.Budget,
		"%s %s allows %s %s, but pruning these layers reaches %s at the least (%.4f of the dense "+
			"model's %s); %s",
		b.name, b.asked, number(b.limit), b.unit, number(least), least/b.dense, number(b.dense),
		cure)
}
