package abi

import (
	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/routing"
)

// curveRequest is the request of Curve; the prior "" is the first.
type curveRequest struct {
	Prior   string `json:"prior"`
	Answers string `json:"answers"`
	Points  int    `json:"points"`
}

// Curve exports the curve over the thresholds of a prior, "" for the first, thinned to at most the
// points of a request {"prior":"","answers":"heavy","points":200}, and returns its number of
// points. The costs are in the predictions' metadata.
func Curve(
	request string, predictionsArray, predictionsSchema, outArray, outSchema int64,
) (points int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("predictions", predictionsArray, predictionsSchema)
	out := c.fill(outArray, outSchema)
	asked := decode(&c, request, curveRequest{Answers: routing.HeavyAnswers, Points: 200})
	samples := read(&c, input, tables.LentSamples)
	if c.err != nil {
		return 0, c.err
	}
	if asked.Prior == "" {
		asked.Prior = samples.Priors[0].Name
	}
	curve, err := samples.Curve(asked.Prior, asked.Answers, asked.Points)
	if err != nil {
		return 0, err
	}
	return give(out, tables.CurveToRecord(resultMemory, curve, samples, asked.Prior,
		asked.Answers)), nil
}

// ledgerRequest is the request of Ledger.
type ledgerRequest struct {
	Light     float64 `json:"light_cost"`
	Heavy     float64 `json:"heavy_cost"`
	Shared    float64 `json:"shared_cost"`
	Unit      string  `json:"cost_unit"`
	Samples   int64   `json:"samples"`
	Escalated int64   `json:"escalated"`
}

// Ledger counts the cost of a cascade from
// {"light_cost","heavy_cost","shared_cost","cost_unit","samples","escalated"} and returns it as
// JSON.
func Ledger(request string) (ledger string, err error) {
	defer fault.Recover(&err)
	var c call
	asked := decode(&c, request, ledgerRequest{})
	if c.err != nil {
		return "", c.err
	}
	cost := routing.Cost{Light: asked.Light, Heavy: asked.Heavy, Shared: asked.Shared,
		Unit: asked.Unit}
	return encode[routing.Ledger](routing.NewLedger(cost, asked.Samples, asked.Escalated))
}

// Rank returns the quality of every prior of the predictions (routing.Quality) as a JSON array.
func Rank(predictionsArray, predictionsSchema int64) (qualities string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	samples := read(&c, c.take("predictions", predictionsArray, predictionsSchema),
		tables.LentSamples)
	if c.err != nil {
		return "", c.err
	}
	return encode[[]routing.Quality](routing.Rank(samples.Samples))
}

// Oracle returns the point of the cascade that no router beats (routing.Oracle) as JSON, with the
// answers of the heavy expert or of the ensemble to what escalates. The costs are in the
// predictions' metadata.
func Oracle(answers string, predictionsArray, predictionsSchema int64) (point string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	samples := read(&c, c.take("predictions", predictionsArray, predictionsSchema),
		tables.LentSamples)
	if c.err != nil {
		return "", c.err
	}
	outcomes, err := samples.Outcomes(samples.Priors[0].Name, answers)
	if err != nil {
		return "", err
	}
	return encode[routing.Point](routing.Oracle(outcomes, samples.Cost))
}
