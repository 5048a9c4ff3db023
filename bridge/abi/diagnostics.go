package abi

import (
	"agflow/bridge/tables"
	"agflow/core/diagnostics"
	"agflow/core/fault"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
)

// Diagnose compares criteria on a statistics table, by a request that is JSON of
// diagnostics.Request, and returns the report as JSON.
func Diagnose(request string, tableArray, tableSchema int64) (report string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("statistics", tableArray, tableSchema)
	asked := decode(&c, request, diagnostics.Request{})
	table := read(&c, input, tables.StatisticsFromRecord)
	if c.err != nil {
		return "", c.err
	}
	return encode[diagnostics.Report](diagnostics.Diagnose(table, asked))
}

// stabilityRequest is the request of Stability; Tables is the number of tables in the record batch.
type stabilityRequest struct {
	Tables int64 `json:"tables"`
	diagnostics.StabilityRequest
}

// Stability measures how much the choice of units depends on the batches that were drawn. The
// record batch is "tables" statistics tables of the same layers, one a batch, one after another;
// the rest of the request is JSON of diagnostics.StabilityRequest. It returns the report as JSON.
func Stability(request string, tablesArray, tablesSchema int64) (report string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("statistics", tablesArray, tablesSchema)
	asked := decode(&c, request, stabilityRequest{})
	batches := read(&c, input, func(rec arrow.Record) ([]statistics.Table, error) {
		return splitTables(rec, asked.Tables)
	})
	if c.err != nil {
		return "", c.err
	}
	return encode[diagnostics.StabilityReport](diagnostics.Stability(batches,
		asked.StabilityRequest))
}

// splitTables reads a record batch as n statistics tables of equally many units.
func splitTables(rec arrow.Record, n int64) ([]statistics.Table, error) {
	if n < 1 || n > rec.NumRows() || rec.NumRows()%n != 0 {
		return nil, fault.New(fault.Shape,
			"statistics: %d rows are not %d tables of equally many units; pass one table after "+
				"another",
			rec.NumRows(), n)
	}
	batches, units := make([]statistics.Table, n), rec.NumRows()/n
	for i := range n {
		part := rec.NewSlice(i*units, (i+1)*units)
		table, err := tables.StatisticsFromRecord(part)
		part.Release()
		if err != nil {
			return nil, err
		}
		batches[i] = table
	}
	return batches, nil
}

// AgainstRandom tests whether a pruned model beats models pruned at random, by a request that is
// JSON of diagnostics.TrialRequest, and returns the verdict as JSON.
func AgainstRandom(request string) (verdict string, err error) {
	defer fault.Recover(&err)
	var c call
	asked := decode(&c, request, diagnostics.TrialRequest{})
	if c.err != nil {
		return "", c.err
	}
	return encode[diagnostics.Verdict](diagnostics.AgainstRandom(asked))
}

// DynamicRange returns the dynamic range of the float64 elements of a matrix (diagnostics.Range) as
// JSON.
func DynamicRange(valuesArray, valuesSchema int64) (found string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	matrix := c.matrix(c.take("values", valuesArray, valuesSchema))
	if c.err != nil {
		return "", c.err
	}
	var values, row []float64
	for i := range matrix.Rows() {
		row = matrix.Row(i, row)
		values = append(values, row...)
	}
	return encode[diagnostics.Range](diagnostics.DynamicRange(values))
}
