package tables

import (
	"slices"
	"strconv"
	"strings"

	"agflow/bridge/ipcfile"
	"agflow/core/cancel"
	"agflow/core/fault"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// extractor copies named columns out of a record batch of one kind. It keeps the first error: later
// columns are then empty, and the caller checks it once, at the end.
type extractor struct {
	rec   arrow.Record
	kind  string
	pairs map[string]string
	lent  bool // numbers lie in the record's memory and live as long as it does
	err   error
}

// extract begins to read a record batch of a kind, of this format or upgraded to it, with columns
// of its types or of others whose values fit them. The caller
// releases the extractor.
func extract(rec arrow.Record, kind string) *extractor {
	x := &extractor{kind: kind, pairs: ipcfile.Pairs(rec.Schema().Metadata())}
	// A table of another program names no kind; its columns say whether it is one.
	if found, given := x.pairs[ipcfile.KeyKind]; given && found != kind {
		x.err = fault.New(fault.Value,
			"expected a table of kind %q, its schema metadata says %s=%.40q; make it with agflow",
			kind, ipcfile.KeyKind, found)
		return x
	}
	if x.rec, x.err = current(kind, rec, memory.DefaultAllocator); x.err == nil {
		x.pairs = ipcfile.Pairs(x.rec.Schema().Metadata())
		x.err = missing(kind, x.pairs)
	}
	return x
}

// required is the metadata of each kind without which a table can't be read.
var required = map[string][]string{
	KindStatistics: modelKeys,
	KindScores:     slices.Concat(modelKeys, []string{keyCriterion, keySeed}),
	KindPlan: slices.Concat(modelKeys,
		[]string{keyCriterion, keySeed, keyRequest, keyPlanned}),
	KindPredictions: {keyPrior, keyLightCost, keyHeavyCost, keySharedCost, keyCostUnit},
	KindLatency:     {keyModel, keyModelMS},
	KindFrontier:    {keyCostUnit, keyHeavyAccuracy, keyTolerance, keyChosen},
}

var modelKeys = []string{keyModel, keyModelMACs, keyModelParams}

// missing refuses a table that another tool made of one of agflow's and that lost its metadata.
func missing(kind string, pairs map[string]string) error {
	var lost []string
	for _, key := range required[kind] {
		if _, given := pairs[key]; !given {
			lost = append(lost, key)
		}
	}
	if len(lost) > 0 {
		return fault.New(fault.Value, "the %s table lacks the metadata %s, which many tools drop; "+
			"give it that of the table it was made from (in Python: metadata=original.metadata)",
			kind, strings.Join(lost, ", "))
	}
	return nil
}

// rows is the number of rows; 0 after an error.
func (x *extractor) rows() int64 {
	if x.err != nil {
		return 0
	}
	return x.rec.NumRows()
}

func (x *extractor) release() {
	if x.rec != nil {
		x.rec.Release()
	}
}

// column finds a column by name; other columns may be there too and are not read.
func column[A arrow.Array](x *extractor, name string) (values A, ok bool) {
	if x.err != nil {
		return values, false
	}
	cancel.Check()
	at := x.rec.Schema().FieldIndices(name)
	if len(at) != 1 {
		x.err = fault.New(fault.Value, "the %s table has %d columns %q, expected 1; it has %s",
			x.kind, len(at), name, strings.Join(columnNames(x.rec), ", "))
		return values, false
	}
	found := x.rec.Column(at[0])
	values, ok = found.(A)
	switch {
	case !ok:
		x.err = fault.New(fault.Dtype, "column %q of the %s table is %s, expected %s: cast it",
			name, x.kind, found.DataType(), typeName[A]())
	case found.NullN() > 0:
		x.err = fault.New(fault.Value, "column %q of the %s table has %d nulls, expected none",
			name, x.kind, found.NullN())
	}
	return values, x.err == nil
}

func columnNames(rec arrow.Record) (names []string) {
	for _, f := range rec.Schema().Fields() {
		names = append(names, f.Name)
	}
	return names
}

// typeName is the Arrow name of the type that an array type holds.
func typeName[A arrow.Array]() string {
	var none A
	switch any(none).(type) {
	case *array.String:
		return "utf8"
	case *array.Boolean:
		return "bool"
	case *array.Int32:
		return "int32"
	case *array.Int64:
		return "int64"
	case *array.Float32:
		return "float32"
	case *array.FixedSizeList:
		return "a fixed-size list"
	default:
		return "float64"
	}
}

func (x *extractor) texts(name string) []string {
	values, ok := column[*array.String](x, name)
	if !ok {
		return nil
	}
	out := make([]string, values.Len())
	for i := range out {
		out[i] = strings.Clone(values.Value(i))
	}
	return out
}

func (x *extractor) bools(name string) []bool {
	values, ok := column[*array.Boolean](x, name)
	if !ok {
		return nil
	}
	out := make([]bool, values.Len())
	for i := range out {
		out[i] = values.Value(i)
	}
	return out
}

func (x *extractor) int32s(name string) []int32 {
	values, ok := column[*array.Int32](x, name)
	if !ok {
		return nil
	}
	return numbers(x, values.Int32Values())
}

func (x *extractor) int64s(name string) []int64 {
	values, ok := column[*array.Int64](x, name)
	if !ok {
		return nil
	}
	return numbers(x, values.Int64Values())
}

func (x *extractor) float32s(name string) []float32 {
	values, ok := column[*array.Float32](x, name)
	if !ok {
		return nil
	}
	return numbers(x, values.Float32Values())
}

func (x *extractor) float64s(name string) []float64 {
	values, ok := column[*array.Float64](x, name)
	if !ok {
		return nil
	}
	return numbers(x, values.Float64Values())
}

// numbers copies the values of a column, or lends them.
func numbers[T any](x *extractor, values []T) []T {
	if x.lent {
		return values
	}
	return slices.Clone(values)
}

func (x *extractor) model() (m statistics.Model) {
	if x.err == nil {
		m, x.err = getModel(x.pairs)
	}
	return m
}

func (x *extractor) integer(key string) (n int64) {
	if x.err == nil {
		n, x.err = getInt(x.pairs, key)
	}
	return n
}

// units folds the columns that name a unit back into layers. Rows of a layer must stand together,
// units ascending from 0, since every other column is read by that order.
func (x *extractor) units() (layers []statistics.Layer) {
	x.imageSize()
	if x.err == nil {
		_, x.err = Kept(x.pairs)
	}
	described := x.channelGroups()
	names, _ := column[*array.String](x, "layer")
	groups, _ := column[*array.String](x, "group")
	units, widths, parts := x.int32s("unit"), x.int32s("unit_width"), x.int32s("parts")
	macs, params := x.int64s("unit_macs"), x.int64s("unit_params")
	if x.err != nil {
		return nil
	}
	for i := range units {
		name := names.Value(i)
		row := statistics.Layer{Name: name, Group: groups.Value(i), UnitWidth: int(widths[i]),
			UnitMACs: macs[i], UnitParams: params[i], Parts: int(parts[i])}
		if units[i] == 0 {
			row.Name, row.Group = strings.Clone(row.Name), strings.Clone(row.Group)
			if x.err = described.complete(&row); x.err != nil {
				return nil
			}
			layers = append(layers, row)
		}
		if len(layers) == 0 {
			x.err = fault.New(fault.Value,
				"row 0 of the %s table is unit %d of layer %q, expected unit 0; keep the rows in "+
					"agflow's order", x.kind, units[i], name)
			return nil
		}
		last := &layers[len(layers)-1]
		row.Units, row.Rounds = last.Units, last.Rounds
		row.MayVanish, row.Residual = last.MayVanish, last.Residual
		if row != *last || int(units[i]) != last.Units {
			x.err = fault.New(fault.Value,
				"row %d of the %s table is unit %d of layer %q, expected unit %d of layer %q with "+
					"the same sizes; keep the rows in agflow's order",
				i, x.kind, units[i], name, last.Units, last.Name)
			return nil
		}
		last.Units++
	}
	x.err = statistics.ValidateLayers(layers)
	return layers
}

func (x *extractor) channelGroups() (groups channelGroups) {
	if x.err == nil {
		groups, x.err = getChannelGroups(x.pairs)
	}
	return groups
}

// imageSize checks the optional metadata of the height and width, in pixels, at which the model was
// measured.
func (x *extractor) imageSize() {
	text, given := x.pairs[keyImageSize]
	if x.err != nil || !given {
		return
	}
	height, width, _ := strings.Cut(text, "x")
	for _, side := range []string{height, width} {
		if pixels, err := strconv.ParseUint(side, 10, 31); err != nil || pixels == 0 {
			x.err = fault.New(fault.Value, "metadata %s is %.40q, expected height and width in "+
				"pixels such as \"224x224\"; make the table with agflow", keyImageSize, text)
			return
		}
	}
}
