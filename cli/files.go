package main

import (
	"fmt"

	"agflow/bridge/ipcfile"
	"agflow/bridge/tables"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/urfave/cli/v2"
)

const fileSteps = "Files (no Python needed)"

// load reads the table of a kind out of a file.
func load[T any](path, kind string, convert func(arrow.Record) (T, error)) (table T, err error) {
	err = ipcfile.Use(path, kind, func(rec arrow.Record) (err error) {
		table, err = convert(rec)
		return err
	})
	return table, err
}

// save writes a table and releases it.
func save(path string, rec arrow.Record) error {
	defer rec.Release()
	_, err := tables.Write(path, rec)
	return err
}

// saveOutput writes a table as the output of a command and releases it.
func saveOutput(c *cli.Context, rec arrow.Record) error {
	defer rec.Release()
	return writeOutput(c, func(path string) error {
		_, err := tables.Write(path, rec)
		return err
	})
}

func loadStatistics(paths []string) (loaded []statistics.Table, err error) {
	for _, path := range paths {
		table, err := load(path, tables.KindStatistics, tables.StatisticsFromRecord)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, table)
	}
	return loaded, nil
}

func saveStatistics(c *cli.Context, table statistics.Table) (outcome, error) {
	path, rec := c.String("output"), tables.StatisticsToRecord(memory.DefaultAllocator, table)
	if err := saveOutput(c, rec); err != nil {
		return outcome{}, err
	}
	units, layers, model := statistics.Units(table.Layers), len(table.Layers), table.Model
	return outcome{
		map[string]any{
			"output": path, "model": model, "layers": layers, "units": units,
			"metadata": table.Metadata,
		},
		fmt.Sprintf("%s: %d units in %d layers of %s", path, units, layers, model.Name),
	}, nil
}
