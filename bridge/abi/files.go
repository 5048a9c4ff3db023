package abi

import (
	"agflow/bridge/ipcfile"
	"agflow/bridge/tables"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
)

// WriteFile writes a record batch, whose schema metadata names its kind, to a file and returns the
// file's bytes.
func WriteFile(path string, array, schema int64) (bytes int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	bytes = read(&c, c.take("table", array, schema), func(rec arrow.Record) (int64, error) {
		return tables.Write(path, rec)
	})
	return bytes, c.err
}

// ReadFile verifies a file of a kind, or of any kind for "", exports its record batch and returns
// the rows. A large file is mapped and not copied: see ipcfile.Open.
func ReadFile(path, kind string, outArray, outSchema int64) (rows int64, err error) {
	defer fault.Recover(&err)
	var c call
	out := c.fill(outArray, outSchema)
	if c.err != nil {
		return 0, c.err
	}
	rec, err := ipcfile.Open(path, kind, resultMemory)
	if err != nil {
		return 0, err
	}
	return give(out, rec), nil
}

// CheckTable checks a table of a kind, which any Arrow tool may have made, as strictly as the calls
// that take one. Where it differs from what this version writes (it is of an older format, or an
// edited plan says another cost than its units have) it exports a copy that does not. It returns
// the number of tables exported, 0 or 1.
func CheckTable(kind string, array, schema, outArray, outSchema int64) (exported int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("table", array, schema)
	out := c.fill(outArray, outSchema)
	current := read(&c, input, func(rec arrow.Record) (arrow.Record, error) {
		return tables.Checked(kind, rec, resultMemory)
	})
	if c.err != nil || current == nil {
		return 0, c.err
	}
	give(out, current)
	return 1, nil
}
