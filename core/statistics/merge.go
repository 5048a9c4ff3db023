package statistics

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	"agflow/core/fault"
)

// The metadata keys whose values Merge joins.
const (
	DataKey    = "agflow.data"    // fingerprint of the images seen
	SkippedKey = "agflow.skipped" // JSON {layer: batches left out of it}; absent when none were
)

// Merge adds the sums of tables of the same model and layers, in the given order, as if one run had
// seen all their batches. Weight sums must be equal and count once. The metadata is the first
// table's, with data fingerprints joined by "+" and skipped batches added.
//
// Errors: empty (no tables), layer or value (tables of different models, layers or weights), and
// those of [Table.Validate].
func Merge(tables ...Table) (Table, error) {
	if len(tables) == 0 {
		return Table{}, fault.New(fault.Empty,
			"no statistics were given to merge; give at least one table")
	}
	for _, t := range tables {
		if err := t.Validate(); err != nil {
			return Table{}, err
		}
	}
	merged := tables[0].clone()
	for i, t := range tables[1:] {
		if err := sameOrigin(tables[0], t, i+1); err != nil {
			return Table{}, err
		}
		if err := merged.add(t); err != nil {
			return Table{}, err
		}
	}
	return merged, merged.Validate()
}

// sameOrigin refuses table number i unless model, layers and weights are the first table's.
func sameOrigin(first, t Table, i int) error {
	if first.Model != t.Model {
		return fault.New(fault.Value,
			"statistics %d are of model %s, the first of %s; merge runs of one model", i,
			describe(t.Model), describe(first.Model))
	}
	if len(first.Layers) != len(t.Layers) {
		return fault.New(fault.Layer,
			"statistics %d have %d layers, the first %d; merge runs over the same layers", i,
			len(t.Layers), len(first.Layers))
	}
	for k, l := range first.Layers {
		if l != t.Layers[k] {
			return fault.New(fault.Layer,
				"statistics %d have %+v where the first have %+v; "+
					"merge runs over the same layers in the same order",
				i, t.Layers[k], l)
		}
	}
	for k, c := range first.weightCounts() {
		other := *t.weightCounts()[k].values
		if err := sameColumn(first.Layers, *c.values, other, c.name, i); err != nil {
			return err
		}
	}
	for k, c := range first.weightFloats() {
		other := *t.weightFloats()[k].values
		if err := sameColumn(first.Layers, *c.values, other, c.name, i); err != nil {
			return err
		}
	}
	return nil
}

// sameColumn refuses table number i where a column of its weights differs from the first table's.
func sameColumn[T int64 | float64](layers []Layer, first, other []T, name string, i int) error {
	for u := range first {
		if first[u] != other[u] {
			return fault.New(fault.Value,
				"statistics %d have other weights than the first: column %s at %s is %v, not %v; "+
					"merge runs of one model with the same weights",
				i, name, UnitName(layers, u), other[u], first[u])
		}
	}
	return nil
}

func describe(m Model) string {
	return fmt.Sprintf("%q (%d MACs, %d parameters)", m.Name, m.MACs, m.Params)
}

// add adds the sums and counts of a table of the same origin.
func (t *Table) add(other Table) error {
	for k, c := range t.activationCounts() {
		for i, n := range *other.activationCounts()[k].values {
			if n > math.MaxInt64-(*c.values)[i] {
				return fault.New(fault.Value,
					"column %s would pass the greatest 64-bit count at %s; merge fewer tables",
					c.name, UnitName(t.Layers, i))
			}
			(*c.values)[i] += n
		}
	}
	for k, c := range t.activationSums() {
		for i, v := range *other.activationSums()[k].values {
			(*c.values)[i] += v
		}
	}
	for i, v := range other.MaxAbsYG {
		t.MaxAbsYG[i] = max(t.MaxAbsYG[i], v)
	}
	t.joinData(other.Metadata[DataKey])
	return t.joinSkipped(other.Metadata[SkippedKey])
}

// joinData appends a fingerprint to the table's own.
func (t *Table) joinData(fingerprint string) {
	switch {
	case fingerprint == "":
	case t.Metadata[DataKey] == "":
		t.Metadata[DataKey] = fingerprint
	default:
		t.Metadata[DataKey] += "+" + fingerprint
	}
}

// joinSkipped adds the skipped batches of another table to the table's own.
func (t *Table) joinSkipped(other string) error {
	skipped := map[string]int64{}
	for _, text := range []string{t.Metadata[SkippedKey], other} {
		if text == "" {
			continue
		}
		var more map[string]int64
		if err := json.Unmarshal([]byte(text), &more); err != nil {
			return fault.New(fault.Value,
				"metadata %s is %q, expected JSON {layer: batches}: %w; make the statistics again",
				SkippedKey, text, err)
		}
		for layer, batches := range more {
			skipped[layer] += batches
		}
	}
	if len(skipped) == 0 {
		return nil
	}
	text, err := json.Marshal(skipped)
	t.Metadata[SkippedKey] = string(text)
	return err
}

// clone returns a table that shares no memory with t.
func (t Table) clone() Table {
	c := t
	c.Layers = slices.Clone(t.Layers)
	for _, column := range c.counts() {
		*column.values = slices.Clone(*column.values)
	}
	for _, column := range c.floats() {
		*column.values = slices.Clone(*column.values)
	}
	c.Metadata = maps.Clone(t.Metadata)
	if c.Metadata == nil {
		c.Metadata = map[string]string{}
	}
	return c
}
