package abi

import (
	"agflow/bridge/carrow"
	"agflow/core/diagnostics"
	"agflow/core/fault"
	"agflow/core/routing"
)

// Rank returns the quality of every prior of the predictions (routing.Quality) as a JSON array.
func Rank(predictionsArray, predictionsSchema int64) (qualities string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("predictions", predictionsArray, predictionsSchema)
	defer input.Release()
	samples, err := readSamples(input)
	if err != nil {
		return "", err
	}
	found, err := routing.Rank(samples.Samples)
	if err != nil {
		return "", err
	}
	return encode(found)
}

// EvaluateRouter returns what a router, given as JSON, makes of predictions (routing.EvaluateRouter) as JSON. The costs are in the predictions'
// metadata.
func EvaluateRouter(router string, predictionsArray, predictionsSchema int64) (judgement string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("predictions", predictionsArray, predictionsSchema)
	defer input.Release()
	asked, err := routing.ParseRouter([]byte(router))
	if err != nil {
		return "", err
	}
	samples, err := readSamples(input)
	if err != nil {
		return "", err
	}
	found, err := routing.EvaluateRouter(samples.Samples, asked)
	if err != nil {
		return "", err
	}
	return encode(found)
}

// Oracle returns the point of the cascade that no router beats (routing.Oracle) as JSON, with answers of the heavy or of both
// experts to what escalates. The costs are in the predictions' metadata.
func Oracle(answers string, predictionsArray, predictionsSchema int64) (point string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("predictions", predictionsArray, predictionsSchema)
	defer input.Release()
	samples, err := readSamples(input)
	if err != nil {
		return "", err
	}
	outcomes, err := samples.Outcomes(samples.Priors[0].Name, answers)
	if err != nil {
		return "", err
	}
	found, err := routing.Oracle(outcomes, samples.Cost)
	if err != nil {
		return "", err
	}
	return encode(found)
}

// DynamicRange returns the dynamic range of the float64 elements of a matrix (diagnostics.Range) as JSON.
func DynamicRange(valuesArray, valuesSchema int64) (found string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("values", valuesArray, valuesSchema)
	defer input.Release()
	matrix, err := input.Matrix()
	if err != nil {
		return "", err
	}
	var values, row []float64
	for i := range matrix.Rows() {
		row = matrix.Row(i, row)
		values = append(values, row...)
	}
	dynamic, err := diagnostics.DynamicRange(values)
	if err != nil {
		return "", err
	}
	return encode(dynamic)
}
