package abi

import (
	"agflow/bridge/arrowfile"
	"agflow/bridge/carrow"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
)

// WriteFile writes a record batch, whose schema metadata names its kind, to a file and returns the file's bytes.
func WriteFile(path string, array, schema int64) (bytes int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("table", array, schema)
	defer input.Release()
	err = read(input, func(rec arrow.Record) (err error) {
		bytes, err = arrowfile.Write(path, rec)
		return err
	})
	return bytes, err
}

// ReadFile verifies a file of a kind, or of any kind for "", exports its record batch and returns the rows.
func ReadFile(path, kind string, outArray, outSchema int64) (rows int64, err error) {
	defer fault.Recover(&err)
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	rec, err := arrowfile.Read(path, kind, resultMemory)
	if err != nil {
		return 0, err
	}
	return give(out, rec), nil
}
