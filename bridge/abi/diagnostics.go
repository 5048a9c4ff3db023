package abi

import (
	"agflow/bridge/arrowfile"
	"agflow/bridge/carrow"
	"agflow/core/diagnostics"
	"agflow/core/fault"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
)

// Diagnose compares criteria on a statistics table, by a request that is JSON of diagnostics.Request, and returns the
// report as JSON.
func Diagnose(request string, tableArray, tableSchema int64) (report string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("statistics", tableArray, tableSchema)
	defer input.Release()
	var asked diagnostics.Request
	if err := decode(request, &asked); err != nil {
		return "", err
	}
	table, err := readTable(input)
	if err != nil {
		return "", err
	}
	found, err := diagnostics.Diagnose(table, asked)
	if err != nil {
		return "", err
	}
	return encode(found)
}

// Stability says how far the choice of units depends on the batches that were drawn. The record batch is "tables"
// statistics tables of the same layers, one a batch, one after another; the rest of the request is JSON of
// diagnostics.StabilityRequest. It returns the report as JSON.
func Stability(request string, tablesArray, tablesSchema int64) (report string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("statistics", tablesArray, tablesSchema)
	defer input.Release()
	var asked struct {
		Tables int64 `json:"tables"`
		diagnostics.StabilityRequest
	}
	if err := decode(request, &asked); err != nil {
		return "", err
	}
	var tables []statistics.Table
	err = read(input, func(rec arrow.Record) (err error) {
		tables, err = splitTables(rec, asked.Tables)
		return err
	})
	if err != nil {
		return "", err
	}
	found, err := diagnostics.Stability(tables, asked.StabilityRequest)
	if err != nil {
		return "", err
	}
	return encode(found)
}

// splitTables reads a record batch as n statistics tables of equally many units.
func splitTables(rec arrow.Record, n int64) ([]statistics.Table, error) {
	if n < 1 || n > rec.NumRows() || rec.NumRows()%n != 0 {
		return nil, fault.New(fault.Shape, "statistics: %d rows are not %d tables of equally many units; pass one table after another", rec.NumRows(), n)
	}
	tables, units := make([]statistics.Table, n), rec.NumRows()/n
	for i := range n {
		part := rec.NewSlice(i*units, (i+1)*units)
		table, err := arrowfile.StatisticsFromRecord(part)
		part.Release()
		if err != nil {
			return nil, err
		}
		tables[i] = table
	}
	return tables, nil
}

// AgainstRandom tests whether a pruned model beats models pruned at random, by a request that is JSON of
// diagnostics.TrialRequest, and returns the verdict as JSON.
func AgainstRandom(request string) (verdict string, err error) {
	defer fault.Recover(&err)
	var asked diagnostics.TrialRequest
	if err := decode(request, &asked); err != nil {
		return "", err
	}
	found, err := diagnostics.AgainstRandom(asked)
	if err != nil {
		return "", err
	}
	return encode(found)
}
