package abi

import (
	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/routing"
)

// CalibrateRouter finds the router that a request asks for (routing.Request) and returns it as
// JSON, the content of router.json without its checksum.
func CalibrateRouter(
	request string, predictionsArray, predictionsSchema int64,
) (router string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("predictions", predictionsArray, predictionsSchema)
	asked := decode(&c, request, routing.Request{})
	samples := read(&c, input, tables.LentSamples)
	if c.err != nil {
		return "", c.err
	}
	return encode[routing.Router](routing.NewRouter(samples.Samples, asked))
}

// EvaluateRouter evaluates a router, given as JSON, on predictions and returns
// routing.RouterEvaluation as JSON. The costs are in the predictions' metadata.
func EvaluateRouter(
	router string, predictionsArray, predictionsSchema int64,
) (evaluation string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("predictions", predictionsArray, predictionsSchema)
	asked := decodeRouter(&c, router)
	samples := read(&c, input, tables.LentSamples)
	if c.err != nil {
		return "", c.err
	}
	return encode[routing.RouterEvaluation](routing.EvaluateRouter(samples.Samples, asked))
}

// WriteRouter writes a router, given as JSON, to a file, whole or not at all, and returns the
// file's bytes.
func WriteRouter(path, router string) (bytes int64, err error) {
	defer fault.Recover(&err)
	var c call
	found := decodeRouter(&c, router)
	if c.err != nil {
		return 0, c.err
	}
	return tables.WriteRouter(path, found)
}

// ReadRouter returns the router of a file as JSON.
func ReadRouter(path string) (router string, err error) {
	defer fault.Recover(&err)
	return encode[routing.Router](tables.ReadRouter(path))
}

// decodeRouter reads a router that another language holds.
func decodeRouter(c *call, text string) routing.Router {
	router := decode(c, text, routing.Router{})
	if c.err == nil {
		if err := router.Validate(); err != nil {
			c.err = fault.New(fault.Value, "the router can't be used: %s", fault.Sentence(err))
		}
	}
	return router
}
