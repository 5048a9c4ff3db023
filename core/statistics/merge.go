package statistics

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"agflow/core/fault"
)

// The metadata keys whose values Merge joins.
const (
	DataKey    = "agflow.data"    // fingerprint of the images seen
	LossKey    = "agflow.loss"    // whose gradients were measured, and its reduction
	SkippedKey = "agflow.skipped" // JSON {layer: batches left out of it}; absent when none were
)

// Merge adds the sums of tables of the same model and layers, in the given order, as if one run had
// seen all their batches: see [Merger].
//
// Errors: empty (no tables), and those of [Merger.Add].
func Merge(tables ...Table) (Table, error) {
	var m Merger
	for _, t := range tables {
		if err := m.Add(t); err != nil {
			return Table{}, err
		}
	}
	return m.Table()
}

// Merger merges tables one after the other and keeps none of them: it needs the memory of one
// table, and of the fingerprints, however many are added. The zero Merger has none yet.
type Merger struct {
	merged       Table
	tables       int
	fingerprints []string
}

// Add adds a table's sums; nothing of the table is kept or changed. Weight sums must be equal and
// count once. The metadata is the first table's, with data fingerprints joined by "+" and skipped
// batches added. After an error the merger must not be used.
//
// Errors: layer or value (another model, other layers or weights than the first table's), nonfinite
// or value (sums or counts too great), and those of [Table.Validate].
func (m *Merger) Add(t Table) error {
	if err := t.Validate(); err != nil {
		return err
	}
	if fingerprint := t.Metadata[DataKey]; fingerprint != "" {
		m.fingerprints = append(m.fingerprints, strings.Clone(fingerprint))
	}
	number := m.tables
	m.tables++
	if number == 0 {
		m.merged = t.clone()
		return nil
	}
	if err := sameOrigin(m.merged, t, number); err != nil {
		return err
	}
	return m.merged.add(t)
}

// Table returns the merged table, which later additions change.
//
// Errors: empty (no tables).
func (m *Merger) Table() (Table, error) {
	if m.tables == 0 {
		return Table{}, fault.New(fault.Empty,
			"no statistics were given to merge; give at least one table")
	}
	if len(m.fingerprints) > 0 {
		m.merged.Metadata[DataKey] = strings.Join(m.fingerprints, "+")
	}
	return m.merged, nil
}

// sameOrigin refuses table number i unless model, layers and weights are the first table's.
func sameOrigin(first, t Table, i int) error {
	if first.Model != t.Model {
		return fault.New(fault.Value,
			"statistics %d are of model %s, the first of %s; merge runs of one model", i,
			describe(t.Model), describe(first.Model))
	}
	if a, b := first.Metadata[LossKey], t.Metadata[LossKey]; a != b && a != "" && b != "" {
		return fault.New(fault.Value,
			"statistics %d are of the loss %q, the first of %q; merge runs of one loss", i, b, a)
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
			if sum := (*c.values)[i]; sum-sum != 0 { // an infinity
				return fault.New(fault.Nonfinite,
					"column %s would pass the greatest float64 at %s; merge fewer tables",
					c.name, UnitName(t.Layers, i))
			}
		}
	}
	for i, v := range other.MaxAbsYG {
		t.MaxAbsYG[i] = max(t.MaxAbsYG[i], v)
	}
	return t.joinSkipped(other.Metadata[SkippedKey])
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
