package main

import (
	"fmt"
	"runtime"

	"agflow/bridge/arrowfile"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/urfave/cli/v2"
)

func statisticsCommand() *cli.Command {
	return command(cli.Command{
		Name: "statistics", Usage: "make statistics from a folder of tensors that calibrate --dump wrote", Category: fileSteps,
		Flags: []cli.Flag{
			need("tensors", "`FOLDER` with batch-*.arrow and weights.arrow"), place("output", "statistics.arrow", "statistics `FILE` to write"),
			number("workers", runtime.NumCPU(), "all cores", "`N` goroutines; any number gives the same bits"),
		},
	}, func(c *cli.Context) (outcome, error) {
		table, err := arrowfile.TensorFiles(c.String("tensors"), c.Int("workers"))
		if err != nil {
			return outcome{}, err
		}
		return saveStatistics(c.String("output"), table)
	})
}

func mergeCommand() *cli.Command {
	return command(cli.Command{
		Name: "merge", Usage: "add the statistics of several runs of one model, in the order given", Category: fileSteps, ArgsUsage: "FILE...",
		Flags: []cli.Flag{need("output", "statistics `FILE` to write")},
	}, func(c *cli.Context) (outcome, error) {
		tables, err := loadStatistics(c.Args().Slice())
		if err != nil {
			return outcome{}, err
		}
		merged, err := statistics.Merge(tables...)
		if err != nil {
			return outcome{}, err
		}
		return saveStatistics(c.String("output"), merged)
	})
}

func saveStatistics(path string, table statistics.Table) (outcome, error) {
	if err := save(path, arrowfile.StatisticsToRecord(memory.DefaultAllocator, table)); err != nil {
		return outcome{}, err
	}
	units := statistics.Units(table.Layers)
	return outcome{
		map[string]any{"output": path, "model": table.Model, "layers": len(table.Layers), "units": units, "metadata": table.Metadata},
		fmt.Sprintf("%s: %d units in %d layers of %s", path, units, len(table.Layers), table.Model.Name),
	}, nil
}

func loadStatistics(paths []string) (tables []statistics.Table, err error) {
	for _, path := range paths {
		table, err := load(path, arrowfile.KindStatistics, arrowfile.StatisticsFromRecord)
		if err != nil {
			return nil, err
		}
		tables = append(tables, table)
	}
	return tables, nil
}
