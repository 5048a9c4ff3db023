package tables

import (
	"agflow/bridge/ipcfile"

	"github.com/apache/arrow/go/v15/arrow"
)

// Lend lends the table of a kind in a file to a step. The table may lie in the file's own pages:
// the step must keep nothing of it. Errors of the step are not the file's.
func Lend[T any](
	path, kind string, convert func(arrow.Record) (T, error), step func(T) error,
) error {
	var failed error
	err := ipcfile.Use(path, kind, func(rec arrow.Record) error {
		table, err := convert(rec)
		if err == nil {
			failed = step(table)
		}
		return err
	})
	if err != nil {
		return err
	}
	return failed
}
