package abi

import (
	"agflow/bridge/arrowfile"
	"agflow/bridge/carrow"
	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
)

// statisticsSpec is the request of StatisticsOpen.
type statisticsSpec struct {
	Model    statistics.Model   `json:"model"`
	Layers   []statistics.Layer `json:"layers"`
	Workers  int64              `json:"workers"`
	Metadata map[string]string  `json:"metadata"`
}

// StatisticsOpen starts a session from {"model":{…},"layers":[…],"workers":1,"metadata":{}} and returns its id. A layer
// without "parts" has 1.
func StatisticsOpen(spec string) (id int64, err error) {
	defer fault.Recover(&err)
	s := statisticsSpec{Workers: 1}
	if err := decode(spec, &s); err != nil {
		return 0, err
	}
	for i := range s.Layers {
		if s.Layers[i].Parts == 0 {
			s.Layers[i].Parts = 1
		}
	}
	if err := checkWorkers(s.Workers); err != nil {
		return 0, err
	}
	sums, err := statistics.NewAccumulator(s.Model, s.Layers, int(s.Workers))
	if err != nil {
		return 0, err
	}
	return openSession(&session{sums: sums, metadata: s.Metadata}), nil
}

// StatisticsAdd adds the activations y and gradients g of one layer, both [rows, channels], and returns the rows added.
func StatisticsAdd(id, layer, samples, yArray, ySchema, gArray, gSchema int64) (rows int64, err error) {
	defer fault.Recover(&err)
	yInput, gInput := carrow.Take("y", yArray, ySchema), carrow.Take("g", gArray, gSchema)
	defer gInput.Release()
	defer yInput.Release()
	y, g, err := matrices(yInput, gInput)
	if err != nil {
		return 0, err
	}
	return int64(y.Rows()), withSession(id, func(s *session) error {
		return s.sums.Add(int(layer), int(samples), y, g)
	})
}

// StatisticsAddSums adds one batch of a layer as a device summed it, float64 [8, channels] in the order of
// statistics.Accumulator.AddSums, over the given rows of y and g. It returns the rows added.
func StatisticsAddSums(id, layer, samples, rows, sumsArray, sumsSchema int64) (added int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("sums", sumsArray, sumsSchema)
	defer input.Release()
	sums, err := input.Matrix()
	if err != nil {
		return 0, err
	}
	return rows, withSession(id, func(s *session) error {
		return s.sums.AddSums(int(layer), int(samples), int(rows), sums)
	})
}

// StatisticsAddWeight adds a weight of a layer, [rows, columns]; with unitAxis 0 its rows belong to the units, with 1
// its columns. It returns the elements added.
func StatisticsAddWeight(id, layer, unitAxis, wArray, wSchema int64) (elements int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("w", wArray, wSchema)
	defer input.Release()
	w, err := input.Matrix()
	if err != nil {
		return 0, err
	}
	return elementsOf(w), withSession(id, func(s *session) error {
		return s.sums.AddWeight(int(layer), int(unitAxis), w)
	})
}

// StatisticsAddWeightGradient adds a weight of a layer and the gradient of the loss by it, both as StatisticsAddWeight
// takes them. It returns the elements added.
func StatisticsAddWeightGradient(id, layer, unitAxis, wArray, wSchema, dwArray, dwSchema int64) (elements int64, err error) {
	defer fault.Recover(&err)
	wInput, dwInput := carrow.Take("w", wArray, wSchema), carrow.Take("dw", dwArray, dwSchema)
	defer dwInput.Release()
	defer wInput.Release()
	w, dw, err := matrices(wInput, dwInput)
	if err != nil {
		return 0, err
	}
	return elementsOf(w), withSession(id, func(s *session) error {
		return s.sums.AddWeightGradient(int(layer), int(unitAxis), w, dw)
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

func matrices(a, b *carrow.Input) (first, second tensor.View, err error) {
	if first, err = a.Matrix(); err == nil {
		second, err = b.Matrix()
	}
	return first, second, err
}

func elementsOf(w tensor.View) int64 { return int64(w.Rows()) * int64(w.Channels()) }

func readTable(in *carrow.Input) (table statistics.Table, err error) {
	err = read(in, func(rec arrow.Record) (err error) {
		table, err = arrowfile.StatisticsFromRecord(rec)
		return err
	})
	return table, err
}
