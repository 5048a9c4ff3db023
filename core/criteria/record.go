package criteria

import (
	"slices"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// record is a kind of weight statistics, which a table has only if it was recorded.
type record struct {
	what  string
	count func(statistics.Table) []int64 // elements recorded a unit, 0 for none
	cure  string
}

var (
	weights = record{
		what:  "weights",
		count: func(t statistics.Table) []int64 { return t.Weights },
		cure:  "add the layer's weights while calibrating",
	}
	readerWeights = record{
		what:  "weights that read it",
		count: func(t statistics.Table) []int64 { return t.ReaderWeights },
		cure:  "add the weight that reads the layer (fc2 or proj, unit axis 1) while calibrating",
	}
	weightGradients = record{
		what:  "weight gradients",
		count: func(t statistics.Table) []int64 { return t.WeightGradients },
		cure:  "calibrate with weight_gradients=True",
	}
)

// check refuses a layer, whose entries of t begin at offset, without the record that the criterion
// needs.
func (c criterion) check(l statistics.Layer, offset int, t statistics.Table) error {
	if c.needs == nil {
		return nil
	}
	if unit := slices.Index(c.needs.count(t)[offset:offset+l.Units], 0); unit >= 0 {
		return fault.New(fault.Layer,
			"unit %d of layer %q has no %s recorded, which %s needs; "+
				"%s, or choose another criterion",
			unit, l.Name, c.needs.what, c.Name, c.needs.cure)
	}
	return nil
}
