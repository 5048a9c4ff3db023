package masking

import (
	"math"
	"strconv"
	"strings"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// budget is a request's budget in numbers: a pruning ratio, or MACs of one image when that is 0.
type budget struct {
	ratio float64
	macs  int64
}

// budgetOf reads the budget of a normalized request. MACs without a suffix are a share of the dense model's up to 1,
// and MACs above.
func budgetOf(r Request, dense int64) (budget, error) {
	if r.MACs == "" {
		return budget{ratio: r.PruningRatio}, nil
	}
	if dense == 0 {
		return budget{}, fault.New(fault.Value, "macs is %q, but the model's own MACs are not recorded; record them, or use pruning_ratio", r.MACs)
	}
	number, factor := r.MACs, 1.0
	if power := strings.IndexByte("KMGT", r.MACs[len(r.MACs)-1]); power >= 0 {
		number, factor = r.MACs[:len(r.MACs)-1], math.Pow10(3*(power+1))
	}
	value, err := strconv.ParseFloat(number, 64)
	if number == r.MACs && value <= 1 {
		factor = float64(dense)
	}
	if err != nil || !(value > 0) || value*factor > math.MaxInt64/2 {
		return budget{}, fault.New(fault.Value, "macs is %q; give a share of the dense model above 0 and up to 1 as \"0.35\", or MACs of one image as \"350M\" or \"1.2G\"", r.MACs)
	}
	return budget{macs: int64(value * factor)}, nil
}

// checkMACs refuses a model of fewer MACs than its layers have together; a model of none has not recorded them.
func checkMACs(model statistics.Model, layers []statistics.Layer) error {
	rest := model.MACs
	if rest < 0 || rest > math.MaxInt64/2 {
		return fault.New(fault.Value, "model %q has %d MACs; record the MACs of the dense model for one image", model.Name, model.MACs)
	}
	if rest == 0 {
		return nil
	}
	for _, l := range layers {
		if l.UnitMACs > rest/int64(l.Units) {
			return fault.New(fault.Value, "model %q has %d MACs, less than its layers up to %q have together; record the MACs of the whole dense model for one image", model.Name, model.MACs, l.Name)
		}
		rest -= int64(l.Units) * l.UnitMACs
	}
	return nil
}
