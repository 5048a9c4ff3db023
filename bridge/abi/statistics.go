package abi

import (
	"agflow/bridge/arrowfile"
	"agflow/bridge/carrow"
	"agflow/core/fault"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
)

// statisticsSpec is the request of StatisticsOpen.
type statisticsSpec struct {
	Model    statistics.Model   `json:"model"`
	Layers   []statistics.Layer `json:"layers"`
	Workers  int                `json:"workers"`
	Metadata map[string]string  `json:"metadata"`
}

// StatisticsOpen starts a session from {"model":{…},"layers":[…],"workers":1,"metadata":{}} and returns its id.
func StatisticsOpen(spec string) (id int64, err error) {
	defer fault.Recover(&err)
	s := statisticsSpec{Workers: 1}
	if err := decode(spec, &s); err != nil {
		return 0, err
	}
	sums, err := statistics.NewAccumulator(s.Model, s.Layers, s.Workers)
	if err != nil {
		return 0, err
	}
	return openSession(&session{sums: sums, metadata: s.Metadata}), nil
}

// StatisticsAdd adds the activations y and gradients g of one layer, both FixedSizeList<float32>[channels], one list
// a row, and returns the rows added.
func StatisticsAdd(id, layer, samples, yArray, ySchema, gArray, gSchema int64) (rows int64, err error) {
	defer fault.Recover(&err)
	yInput, gInput := carrow.Take("y", yArray, ySchema), carrow.Take("g", gArray, gSchema)
	defer gInput.Release()
	defer yInput.Release()
	y, err := yInput.Matrix()
	if err != nil {
		return 0, err
	}
	g, err := gInput.Matrix()
	if err != nil {
		return 0, err
	}
	return int64(y.Rows()), withSession(id, func(s *session) error {
		return s.sums.Add(int(layer), int(samples), y, g)
	})
}

// StatisticsAddWeight adds a weight of a layer, FixedSizeList<float32>[columns]; with unitAxis 0 its rows belong to
// the units, with 1 its columns. It returns the elements added.
func StatisticsAddWeight(id, layer, unitAxis, wArray, wSchema int64) (elements int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("w", wArray, wSchema)
	defer input.Release()
	w, err := input.Matrix()
	if err != nil {
		return 0, err
	}
	return int64(len(w.Data())), withSession(id, func(s *session) error {
		return s.sums.AddWeight(int(layer), int(unitAxis), w)
	})
}

// StatisticsTable exports the statistics so far and returns the number of units.
func StatisticsTable(id, outArray, outSchema int64) (units int64, err error) {
	defer fault.Recover(&err)
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	var table statistics.Table
	err = withSession(id, func(s *session) error {
		table = s.sums.Table()
		table.Metadata = s.metadata
		return nil
	})
	if err != nil {
		return 0, err
	}
	return give(out, arrowfile.StatisticsToRecord(resultMemory, table)), nil
}

// StatisticsClose ends a session; its id is never used again.
func StatisticsClose(id int64) (closed int64, err error) {
	defer fault.Recover(&err)
	return id, closeSession(id)
}

// StatisticsMerge adds two statistics tables, in this order, and returns the number of units.
func StatisticsMerge(aArray, aSchema, bArray, bSchema, outArray, outSchema int64) (units int64, err error) {
	defer fault.Recover(&err)
	aInput, bInput := carrow.Take("first table", aArray, aSchema), carrow.Take("second table", bArray, bSchema)
	defer bInput.Release()
	defer aInput.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	a, err := readTable(aInput)
	if err != nil {
		return 0, err
	}
	b, err := readTable(bInput)
	if err != nil {
		return 0, err
	}
	sum, err := statistics.Merge(a, b)
	if err != nil {
		return 0, err
	}
	return give(out, arrowfile.StatisticsToRecord(resultMemory, sum)), nil
}

func readTable(in *carrow.Input) (table statistics.Table, err error) {
	err = read(in, func(rec arrow.Record) (err error) {
		table, err = arrowfile.StatisticsFromRecord(rec)
		return err
	})
	return table, err
}
