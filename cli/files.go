package main

import (
	"agflow/bridge/arrowfile"

	"github.com/apache/arrow/go/v15/arrow"
)

const fileSteps = "Files (no Python needed)"

// load reads the table of a kind out of a file.
func load[T any](path, kind string, convert func(arrow.Record) (T, error)) (table T, err error) {
	err = arrowfile.Use(path, kind, func(rec arrow.Record) (err error) {
		table, err = convert(rec)
		return err
	})
	return table, err
}

// save writes a table and lets go of it.
func save(path string, rec arrow.Record) error {
	defer rec.Release()
	_, err := arrowfile.Write(path, rec)
	return err
}
