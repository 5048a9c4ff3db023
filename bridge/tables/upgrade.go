package tables

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/planning"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Upgrade returns a record batch of any format in the words of the one that is written: a table of
// an older format becomes what this version would have made. Columns that stay are not copied. The
// caller releases it.
//
// Errors: file (a newer format), and those of what an older format lacks.
func Upgrade(rec arrow.Record) (arrow.Record, error) {
	pairs := ipcfile.Pairs(rec.Schema().Metadata())
	format, err := ipcfile.FormatOf(pairs)
	if err != nil {
		return nil, fault.New(fault.File, "the table %s", fault.Sentence(err))
	}
	if format == ipcfile.Format {
		rec.Retain()
		return rec, nil
	}
	u := upgrade{rows: int(rec.NumRows()), pairs: pairs,
		fields: slices.Clone(rec.Schema().Fields()), arrays: slices.Clone(rec.Columns())}
	for _, values := range u.arrays {
		values.Retain()
	}
	defer u.release()
	for _, step := range upgrades[pairs[ipcfile.KeyKind]] {
		if err := step(&u); err != nil {
			return nil, fault.New(fault.CodeOf(err), "the table of format %d can't be upgraded: %s",
				format, fault.Sentence(err))
		}
	}
	u.pairs[ipcfile.KeyFormat] = strconv.Itoa(ipcfile.Format)
	metadata := arrow.MetadataFrom(u.pairs)
	return array.NewRecord(arrow.NewSchema(u.fields, &metadata), u.arrays, int64(u.rows)), nil
}

// upgrades are the steps from any older format, by kind. A step leaves alone what is already there.
// The kinds latency, logits and scores beyond their units are what they were.
var upgrades = map[string][]func(*upgrade) error{
	KindStatistics:  {addParts, addReaders},
	KindScores:      {addParts},
	KindPlan:        {addParts, plainRequest, addPlanned},
	KindPredictions: {nameCosts, nameEnsemble},
	KindCurve:       {nameCosts, nameEnsemble, addIntervals},
	KindFrontier:    {nameStages},
	KindDecisions:   {nameEnsemble},
	KindTensor:      {addTensorParts},
}

// upgrade is a table that is being changed; it holds on to its arrays.
type upgrade struct {
	rows   int
	pairs  map[string]string
	fields []arrow.Field
	arrays []arrow.Array
}

func (u *upgrade) release() {
	for _, values := range u.arrays {
		values.Release()
	}
}

func (u *upgrade) index(name string) int {
	return slices.IndexFunc(u.fields, func(f arrow.Field) bool { return f.Name == name })
}

func (u *upgrade) renameKey(from, to string) {
	if value, given := u.pairs[from]; given {
		u.pairs[to] = value
		delete(u.pairs, from)
	}
}

// insert puts the columns of c, which it takes over, behind the column named, or at the end.
func (u *upgrade) insert(behind string, c *columns) {
	at := u.index(behind) + 1
	if at == 0 {
		at = len(u.fields)
	}
	u.fields = slices.Insert(u.fields, at, c.fields...)
	u.arrays = slices.Insert(u.arrays, at, c.arrays...)
}

// replaceTexts puts other words in the place of those of a text column.
func (u *upgrade) replaceTexts(name string, words map[string]string) error {
	at := u.index(name)
	if at < 0 {
		return nil // the reader of the kind refuses the table
	}
	old, ok := u.arrays[at].(*array.String)
	if !ok || old.NullN() > 0 {
		return nil
	}
	texts := make([]string, old.Len())
	for i := range texts {
		texts[i] = old.Value(i)
		if word, known := words[texts[i]]; known {
			texts[i] = word
		}
	}
	c := columns{alloc: memory.DefaultAllocator}
	c.texts(name, texts)
	old.Release()
	u.arrays[at] = c.arrays[0]
	return nil
}

// addParts is for formats 1 and 2, from before layers had parts.
func addParts(u *upgrade) error {
	if u.index("parts") >= 0 {
		return nil
	}
	ones := make([]int32, u.rows)
	for i := range ones {
		ones[i] = 1
	}
	c := columns{alloc: memory.DefaultAllocator}
	c.int32s("parts", ones)
	u.insert("unit_width", &c)
	return nil
}

// addReaders is for format 1, from before the weights that read a unit, and their gradients, were
// summed: none were given.
func addReaders(u *upgrade) error {
	if u.index("reader_weights") >= 0 {
		return nil
	}
	none, zeros := make([]int64, u.rows), make([]float64, u.rows)
	c := columns{alloc: memory.DefaultAllocator}
	c.int64s("reader_weights", none)
	c.float64s("sum_abs_reader", zeros)
	c.float64s("sum_reader2", zeros)
	c.float64s("sum_relative_reader", zeros)
	c.int64s("weight_gradients", none)
	c.float64s("sum_wg", zeros)
	u.insert("", &c)
	return nil
}

// plainRequest keeps what a request of today has; a word for what is left out is gone.
func plainRequest(u *upgrade) error {
	var request planning.Request
	if err := json.Unmarshal([]byte(u.pairs[keyRequest]), &request); err != nil {
		return fault.New(fault.Value, "metadata %s is not the JSON of a request: %w", keyRequest,
			err)
	}
	if request.Groups == nil {
		request.Groups = []string{}
	}
	if request.IgnoredLayers == nil {
		request.IgnoredLayers = []string{}
	}
	text, err := json.Marshal(request)
	u.pairs[keyRequest] = string(text)
	return err
}

// addPlanned is for formats 1 and 2: what the plan comes to follows from the units it keeps, which
// PlanFromRecord works out.
func addPlanned(u *upgrade) error {
	if _, given := u.pairs[keyPlanned]; !given {
		u.pairs[keyPlanned] = `{"macs":0,"params":0}`
	}
	return nil
}

// nameCosts gives the costs, all of which were MACs until format 3, their names and their unit.
func nameCosts(u *upgrade) error {
	for from, to := range map[string]string{
		"agflow.light_macs": keyLightCost, "agflow.heavy_macs": keyHeavyCost,
		"agflow.shared_macs": keySharedCost, "agflow.look_macs": keyViewCost,
		"agflow.utility_macs": keyUtilityCost,
	} {
		u.renameKey(from, to)
	}
	u.pairs[keyCostUnit] = routing.MACs
	return nil
}

// ensembleWords are the words for the ensemble until format 3.
var ensembleWords = map[string]string{"both": routing.EnsembleAnswers}

func nameEnsemble(u *upgrade) error {
	if at := u.index("both_prediction"); at >= 0 {
		u.fields[at].Name = ensembleColumn
	}
	if word, known := ensembleWords[u.pairs[keyAnswers]]; known {
		u.pairs[keyAnswers] = word
	}
	return nil
}

// addIntervals is for curves from before points had intervals. The last point escalates all
// samples, and so says how many there are.
func addIntervals(u *upgrade) error {
	if u.index("escalation_low") >= 0 || u.rows == 0 {
		return nil
	}
	metadata := arrow.MetadataFrom(u.pairs)
	x := &extractor{kind: KindCurve, pairs: u.pairs,
		rec: array.NewRecord(arrow.NewSchema(u.fields, &metadata), u.arrays, int64(u.rows))}
	defer x.release()
	cost := routing.Cost{Light: x.cost(keyLightCost), Heavy: x.cost(keyHeavyCost),
		Shared: x.cost(keySharedCost), Unit: routing.MACs}
	points, escalated := make([]routing.Point, u.rows), x.int64s("escalated")
	for _, m := range measures {
		for i, v := range x.float64s(m.name) {
			*m.value(&points[i]) = v
		}
	}
	if x.err != nil {
		return x.err
	}
	if err := routing.WithIntervals(points, escalated[u.rows-1], cost); err != nil {
		return err
	}
	for _, m := range measures {
		c := columns{alloc: memory.DefaultAllocator}
		c.interval(m, points)
		u.insert(m.name, &c)
	}
	return nil
}

// nameStages gives the stages and the unit of a frontier the names they have now.
func nameStages(u *upgrade) error {
	words := map[string]string{"cut": "pruned", "little": "short"}
	if err := u.replaceTexts("stage", words); err != nil {
		return err
	}
	if unit, given := u.pairs["agflow.cost"]; given {
		if unit == "macs" {
			unit = routing.MACs
		}
		u.pairs[keyCostUnit] = unit
		delete(u.pairs, "agflow.cost")
	}
	return u.replaceTexts("answers", ensembleWords)
}

// addTensorParts is for formats 1 and 2, whose fields name no parts.
func addTensorParts(u *upgrade) error {
	for i, field := range u.fields {
		keys, values := slices.Clone(field.Metadata.Keys()), slices.Clone(field.Metadata.Values())
		if slices.Contains(keys, keyParts) {
			continue
		}
		u.fields[i].Metadata = arrow.NewMetadata(append(keys, keyParts), append(values, "1"))
	}
	return nil
}

// Checked returns a copy of a table as this version would have written it where the table differs
// from that, and nil where it does not: a table of an older format is upgraded, columns get the
// types of the kind, and what an edited plan comes to follows from the units that it keeps.
//
// Errors: those of the reader of the kind.
func Checked(kind string, rec arrow.Record, alloc memory.Allocator) (arrow.Record, error) {
	check, known := checks[kind]
	if !known {
		return nil, fault.New(fault.Value, "there is no kind of table %.40q", kind)
	}
	if err := check(rec); err != nil {
		return nil, err
	}
	now, err := current(kind, rec, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	defer now.Release()
	pairs := ipcfile.Pairs(now.Schema().Metadata())
	if kind == KindPlan {
		if err := price(now, pairs); err != nil {
			return nil, err
		}
	}
	if maps.Equal(pairs, ipcfile.Pairs(rec.Schema().Metadata())) &&
		slices.EqualFunc(now.Schema().Fields(), rec.Schema().Fields(), sameType) {
		return nil, nil
	}
	return copyOf(now, pairs, alloc)
}

func sameType(a, b arrow.Field) bool { return a.Name == b.Name && arrow.TypeEqual(a.Type, b.Type) }

// price sets what a plan comes to.
func price(rec arrow.Record, pairs map[string]string) error {
	plan, err := PlanFromRecord(rec)
	if err != nil {
		return err
	}
	text, err := json.Marshal(plan.Planned)
	pairs[keyPlanned] = string(text)
	return err
}

// copyOf copies the columns of a record batch under other metadata.
func copyOf(
	rec arrow.Record, pairs map[string]string, alloc memory.Allocator,
) (arrow.Record, error) {
	copies := make([]arrow.Array, 0, rec.NumCols())
	defer func() {
		for _, values := range copies {
			values.Release()
		}
	}()
	for _, values := range rec.Columns() {
		values, err := array.Concatenate([]arrow.Array{values}, alloc)
		if err != nil {
			return nil, err
		}
		copies = append(copies, values)
	}
	metadata := arrow.MetadataFrom(pairs)
	return array.NewRecord(arrow.NewSchema(rec.Schema().Fields(), &metadata), copies,
		rec.NumRows()), nil
}
