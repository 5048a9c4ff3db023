package tables

import (
	"agflow/bridge/ipcfile"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
)

// MergeStatistics merges files of statistics in the given order, one in memory at a time. A path
// may stand in the list several times; it counts each time. The error of a file begins with its
// name.
//
// Errors: those of [ipcfile.Use] and of [statistics.Merger].
func MergeStatistics(paths []string) (statistics.Table, error) {
	var merger statistics.Merger
	for _, path := range paths {
		err := ipcfile.Use(path, KindStatistics, func(rec arrow.Record) error {
			table, err := lentStatistics(rec)
			if err != nil {
				return err
			}
			return merger.Add(table)
		})
		if err != nil {
			return statistics.Table{}, err
		}
	}
	return merger.Table()
}
