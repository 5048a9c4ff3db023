package main

import (
	"agflow/bridge/arrowfile"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

const fileSteps = "Files (no Python needed)"

// load reads the table of a kind out of a file.
func load[T any](path, kind string, convert func(arrow.Record) (T, error)) (table T, err error) {
	rec, err := arrowfile.Read(path, kind, memory.DefaultAllocator)
	if err != nil {
		return table, err
	}
	defer rec.Release()
	if table, err = convert(rec); err != nil {
		return table, inFile(path, err)
	}
	return table, nil
}

// save writes a table and lets go of it.
func save(path string, rec arrow.Record) error {
	defer rec.Release()
	_, err := arrowfile.Write(path, rec)
	return err
}

// inFile puts the name of a file before an error and keeps its code.
func inFile(path string, err error) error {
	return fault.New(fault.CodeOf(err), "%s: %s", path, sentence(err))
}
