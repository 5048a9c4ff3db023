package abi

import (
	"encoding/json"
	"strings"

	"agflow/core/fault"
)

// decode reads a request in JSON over asked, which holds the defaults; a misspelt key is an error,
// not a silent default. Callers write asked as a literal, T{…}, so that the generator of the calls
// sees the type.
func decode[T any](c *call, request string, asked T) T {
	if c.err != nil {
		return asked
	}
	d := json.NewDecoder(strings.NewReader(request))
	d.DisallowUnknownFields()
	if err := d.Decode(&asked); err != nil {
		c.err = fault.New(fault.Value, "the request is not the JSON expected here: %w", err)
	}
	return asked
}

// encode writes the result of a function as JSON. Callers name the type, encode[T](…), for the
// generator of the calls.
func encode[T any](result T, err error) (string, error) {
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(result)
	if err != nil {
		return "", fault.New(fault.Internal, "the result can't be written as JSON: %w", err)
	}
	return string(text), nil
}
