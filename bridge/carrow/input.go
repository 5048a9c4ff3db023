// Package carrow exchanges Arrow data between another language and Go: it borrows what comes
// in through the Arrow C Data Interface and exports what goes out. Nothing is copied on the way in.
//
// The producer owns all memory. An [Input] borrows it for one call: nothing taken from an Input may
// be used after Release. Every field of the raw structs is checked before it is trusted; arrow's
// own importer aborts the process on a malformed child, so it is not used.
package carrow

import (
	"runtime/debug"

	"agflow/core/fault"
)

// Input is one Arrow value handed in as two raw C structs.
type Input struct {
	name   string
	array  *cArray
	schema *cSchema
}

// Take wraps the addresses of a struct ArrowArray and a struct ArrowSchema, which Release gives
// back. It never fails: what is wrong with the structs is said when they are read. The name is the
// word for the value in errors.
func Take(name string, array, schema int64) *Input {
	return &Input{name: name, array: structAt[cArray](array), schema: structAt[cSchema](schema)}
}

// Release calls both release callbacks, each exactly once however often Release is called.
func (in *Input) Release() {
	if a := in.array; a != nil && probe(func() bool { return a.release != 0 }) {
		releaseArray(a)
	}
	if s := in.schema; s != nil && probe(func() bool { return s.release != 0 }) {
		releaseSchema(s)
	}
	in.array, in.schema = nil, nil
}

// present refuses structs that are missing or were released before.
func (in *Input) present() error {
	switch {
	case in.array == nil || in.schema == nil:
		return fault.New(fault.Value,
			"%s: the addresses don't lead to Arrow C structs; pass the structs of one exported "+
				"array", in.name)
	case in.array.release == 0 || in.schema.release == 0:
		return fault.New(fault.Value,
			"%s: the Arrow structs were released before; export the array again for each call",
			in.name)
	}
	return nil
}

// guarded runs a read of the structs: an address that leads nowhere becomes an error, not the end
// of the process.
func (in *Input) guarded(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = fault.New(fault.Value,
				"%s: a pointer of the Arrow structs leads to memory that can't be read; export "+
					"the array again", in.name)
		}
	}()
	if err := in.present(); err != nil {
		return err
	}
	return read()
}

// probe asks a question about foreign memory; where the memory can't be read the answer is no.
func probe(question func() bool) (yes bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			yes = false
		}
	}()
	return question()
}

// structAt follows the address of a struct; nil when there can't be one.
func structAt[T any](address int64) *T {
	if !plausible(uintptr(address), 8) {
		return nil
	}
	return at[T](uintptr(address))
}
