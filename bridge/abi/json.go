package abi

import (
	"encoding/json"

	"agflow/core/fault"
	"agflow/core/strictjson"
)

// decode reads a request in JSON over asked, which holds the defaults; a misspelt key is an error,
// not a silent default. Callers write asked as a literal, T{…}, so that the generator of the calls
// sees the type.
func decode[T any](c *call, request string, asked T) T {
	if c.err != nil {
		return asked
	}
	if err := strictjson.Over([]byte(request), &asked); err != nil {
		c.err = fault.New(fault.Value, "the request can't be read: %w", err)
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
