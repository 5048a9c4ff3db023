package planning

import (
	"agflow/core/fault"
	"agflow/core/statistics"
)

// Difference counts the units that two plans keep, in all layers and in each.
type Difference struct {
	Comparison
	Layers []LayerComparison `json:"layers"`
}

// Comparison counts the units that two plans keep.
type Comparison struct {
	Units   int     `json:"units"`
	A       int     `json:"a"`       // kept by the first plan
	B       int     `json:"b"`       // by the second
	Both    int     `json:"both"`    // by both
	Jaccard float64 `json:"jaccard"` // kept by both over kept by either; 1 where neither keeps any
}

// LayerComparison is one layer of a Difference.
type LayerComparison struct {
	Layer string `json:"layer"`
	Group string `json:"group"`
	Comparison
}

// Diff compares two plans of the same layers. Their criteria and requests may differ.
//
// Errors: shape (other layers), and those of [Plan.Validate].
func Diff(a, b Plan) (Difference, error) {
	for _, p := range []Plan{a, b} {
		if err := p.Validate(); err != nil {
			return Difference{}, err
		}
	}
	if err := sameUnits(a.Layers, b.Layers); err != nil {
		return Difference{}, err
	}
	var d Difference
	offsets := statistics.Offsets(a.Layers)
	for i, l := range a.Layers {
		found := compare(a.Keep[offsets[i]:offsets[i+1]], b.Keep[offsets[i]:offsets[i+1]])
		d.Layers = append(d.Layers, LayerComparison{
			Layer: l.Name, Group: l.Group, Comparison: found,
		})
	}
	d.Comparison = compare(a.Keep, b.Keep)
	return d, nil
}

func compare(a, b []bool) Comparison {
	o := Comparison{Units: len(a), A: count(a), B: count(b), Jaccard: 1}
	for u := range a {
		if a[u] && b[u] {
			o.Both++
		}
	}
	if either := o.A + o.B - o.Both; either > 0 {
		o.Jaccard = float64(o.Both) / float64(either)
	}
	return o
}

// sameUnits refuses layers with different units. The costs of a unit may differ.
func sameUnits(a, b []statistics.Layer) error {
	if len(a) != len(b) {
		return fault.New(fault.Shape,
			"the first plan is of %d layers and the second of %d; "+
				"compare plans of the same model and groups",
			len(a), len(b))
	}
	for i, l := range a {
		other := b[i]
		other.UnitMACs, other.UnitParams = l.UnitMACs, l.UnitParams
		if l != other {
			return fault.New(fault.Shape,
				"layer %d of the first plan is %q with %d units of group %q, "+
					"of the second %q with %d of group %q; "+
					"compare plans of the same model and groups",
				i, l.Name, l.Units, l.Group, other.Name, other.Units, other.Group)
		}
	}
	return nil
}
