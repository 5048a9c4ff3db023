package abi

import (
	"agflow/bridge/carrow"
	"agflow/core/fault"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
)

// call is one call from another language: the inputs that it borrows, and its first error. What is
// read after an error is empty, so that a call checks c.err once, before its own work. Every call
// begins with
//
//	defer fault.Recover(&err)
//	var c call
//	defer c.release()
//
// and takes all of its inputs before anything else, so that all are released whatever goes wrong.
type call struct {
	inputs []*carrow.Input
	err    error
}

// take borrows an Arrow value until the call is released. The name is the word for it in errors.
func (c *call) take(name string, array, schema int64) *carrow.Input {
	in := carrow.Take(name, array, schema)
	c.inputs = append(c.inputs, in)
	return in
}

// release gives all inputs back.
func (c *call) release() {
	for _, in := range c.inputs {
		in.Release()
	}
}

// fill checks the two zeroed structs that the result goes into.
func (c *call) fill(array, schema int64) (out carrow.Output) {
	if c.err == nil {
		out, c.err = carrow.Fill(array, schema)
	}
	return out
}

// matrix reads an input as rows of channels, over the caller's memory.
func (c *call) matrix(in *carrow.Input) (view tensor.View) {
	if c.err == nil {
		view, c.err = in.Matrix()
	}
	return view
}

// read copies what from finds in an input's record batch.
func read[T any](c *call, in *carrow.Input, from func(arrow.Record) (T, error)) (table T) {
	if c.err != nil {
		return table
	}
	rec, err := in.Record()
	if err != nil {
		c.err = err
		return table
	}
	defer rec.Release()
	table, c.err = from(rec)
	return table
}

// maxWorkers is beyond any machine; what shares work out needs no care for numbers near the end of
// int64 then.
const maxWorkers = 1 << 12

// workers checks a number of goroutines.
func (c *call) workers(n int64) int {
	if c.err == nil && (n < 1 || n > maxWorkers) {
		c.err = fault.New(fault.Value, "%d workers were asked for; use 1 to %d", n, maxWorkers)
	}
	return int(n)
}
