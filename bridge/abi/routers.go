package abi

import (
	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/routing"
)

// CalibrateRouter finds the router that a request asks for (routing.Request) and returns it as
// JSON, the content of router.json.
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
	asked, err := routing.ParseRouter([]byte(router))
	if err != nil {
		return "", err
	}
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
	found, err := routing.ParseRouter([]byte(router))
	if err != nil {
		return 0, err
	}
	return tables.WriteRouter(path, found)
}

// ReadRouter returns the router of a file as JSON.
func ReadRouter(path string) (router string, err error) {
	defer fault.Recover(&err)
	return encode[routing.Router](tables.ReadRouter(path))
}
