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
		c.err = usable(router)
	}
	return router
}

func usable(router routing.Router) error {
	if err := router.Validate(); err != nil {
		return fault.New(fault.Value, "the router can't be used: %s", fault.Sentence(err))
	}
	return nil
}

// verdictRequest is the request of Verdict.
type verdictRequest struct {
	Router     routing.Router      `json:"router"`
	Ledger     routing.Ledger      `json:"ledger"`
	Difference *routing.Difference `json:"difference"`
	Clock      *routing.Clock      `json:"clock"`
}

// Verdict returns routing.Verdict, on both counts, as JSON. The request is
// {"router","ledger","difference","clock"}; difference is null where the cascade was not tested,
// and clock where nothing was timed.
func Verdict(request string) (verdict string, err error) {
	defer fault.Recover(&err)
	var c call
	asked := decode(&c, request, verdictRequest{})
	if c.err == nil {
		c.err = usable(asked.Router)
	}
	if c.err != nil {
		return "", c.err
	}
	return encode[routing.Verdict](routing.NewVerdict(asked.Router.Threshold, routing.Evidence{
		Ledger: asked.Ledger, Difference: asked.Difference, Clock: asked.Clock,
	}), nil)
}
