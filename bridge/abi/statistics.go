package abi

import (
	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/tensor"
)

// statisticsSpec is the request of StatisticsOpen.
type statisticsSpec struct {
	Model    statistics.Model   `json:"model"`
	Layers   []statistics.Layer `json:"layers"`
	Workers  int64              `json:"workers"`
	Metadata map[string]string  `json:"metadata"`
}

// StatisticsOpen starts a session from {"model":{…},"layers":[…],"workers":1,"metadata":{}} and
// returns its id. A layer without "parts" has 1; without "rounds" and "may_vanish" neither holds.
func StatisticsOpen(spec string) (id int64, err error) {
	defer fault.Recover(&err)
	var c call
	s := decode(&c, spec, statisticsSpec{Workers: 1})
	workers := c.workers(s.Workers)
	if c.err != nil {
		return 0, c.err
	}
	for i := range s.Layers {
		if s.Layers[i].Parts == 0 {
			s.Layers[i].Parts = 1
		}
	}
	sums, err := statistics.NewAccumulator(s.Model, s.Layers, workers)
	if err != nil {
		return 0, err
	}
	return openSession(&session{sums: sums, metadata: s.Metadata}), nil
}

// StatisticsAdd adds the activations y and gradients g of one layer, both [rows, channels], and
// returns the rows added.
func StatisticsAdd(
	id, layer, samples, yArray, ySchema, gArray, gSchema int64,
) (rows int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	yInput, gInput := c.take("y", yArray, ySchema), c.take("g", gArray, gSchema)
	y, g := c.matrix(yInput), c.matrix(gInput)
	if c.err != nil {
		return 0, c.err
	}
	return int64(y.Rows()), withSession(id, func(s *session) error {
		return s.sums.Add(int(layer), int(samples), y, g)
	})
}

// StatisticsAddSums adds one batch of a layer as a device summed it, float64 [8, channels] in the
// order of statistics.Accumulator.AddSums, over the given rows of y and g. It returns the rows
// added.
func StatisticsAddSums(
	id, layer, samples, rows, sumsArray, sumsSchema int64,
) (added int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	sums := c.matrix(c.take("sums", sumsArray, sumsSchema))
	if c.err != nil {
		return 0, c.err
	}
	return rows, withSession(id, func(s *session) error {
		return s.sums.AddSums(int(layer), int(samples), int(rows), sums)
	})
}

// StatisticsAddWeight adds a weight of a layer, [rows, columns]; with unitAxis 0 its rows belong to
// the units, with 1 its columns. It returns the elements added.
func StatisticsAddWeight(id, layer, unitAxis, wArray, wSchema int64) (elements int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	w := c.matrix(c.take("w", wArray, wSchema))
	if c.err != nil {
		return 0, c.err
	}
	return elementsOf(w), withSession(id, func(s *session) error {
		return s.sums.AddWeight(int(layer), int(unitAxis), w)
	})
}

// StatisticsAddWeightGradient adds a weight of a layer and the gradient of the loss by it, both as
// StatisticsAddWeight takes them. It returns the elements added.
func StatisticsAddWeightGradient(
	id, layer, unitAxis, wArray, wSchema, dwArray, dwSchema int64,
) (elements int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	wInput, dwInput := c.take("w", wArray, wSchema), c.take("dw", dwArray, dwSchema)
	w, dw := c.matrix(wInput), c.matrix(dwInput)
	if c.err != nil {
		return 0, c.err
	}
	return elementsOf(w), withSession(id, func(s *session) error {
		return s.sums.AddWeightGradient(int(layer), int(unitAxis), w, dw)
	})
}

// StatisticsTable exports the statistics so far and returns the number of units.
func StatisticsTable(id, outArray, outSchema int64) (units int64, err error) {
	defer fault.Recover(&err)
	var c call
	out := c.fill(outArray, outSchema)
	if c.err != nil {
		return 0, c.err
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
	return give(out, tables.StatisticsToRecord(resultMemory, table)), nil
}

// StatisticsClose ends a session; its id is never used again.
func StatisticsClose(id int64) (closed int64, err error) {
	defer fault.Recover(&err)
	return id, closeSession(id)
}

// StatisticsMerge adds two statistics tables, in this order, and returns the number of units.
func StatisticsMerge(
	aArray, aSchema, bArray, bSchema, outArray, outSchema int64,
) (units int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	aInput := c.take("first table", aArray, aSchema)
	bInput := c.take("second table", bArray, bSchema)
	out := c.fill(outArray, outSchema)
	a := read(&c, aInput, tables.StatisticsFromRecord)
	b := read(&c, bInput, tables.StatisticsFromRecord)
	if c.err != nil {
		return 0, c.err
	}
	sum, err := statistics.Merge(a, b)
	if err != nil {
		return 0, err
	}
	return give(out, tables.StatisticsToRecord(resultMemory, sum)), nil
}

// StatisticsMergeFiles adds the tables of files, whose paths are a JSON array, in this order, with
// one of them in memory at a time, and returns the number of units.
func StatisticsMergeFiles(paths string, outArray, outSchema int64) (units int64, err error) {
	defer fault.Recover(&err)
	var c call
	out := c.fill(outArray, outSchema)
	files := decode(&c, paths, []string{})
	if c.err != nil {
		return 0, c.err
	}
	sum, err := tables.MergeStatistics(files)
	if err != nil {
		return 0, err
	}
	return give(out, tables.StatisticsToRecord(resultMemory, sum)), nil
}

func elementsOf(w tensor.View) int64 { return int64(w.Rows()) * int64(w.Channels()) }
