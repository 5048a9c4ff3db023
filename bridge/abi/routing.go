package abi

import (
	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/routing"
	"agflow/core/tensor"
)

// Priors exports the record {prediction int64, and a float32 column for each prior that logits
// give} of the rows of an expert's logits, a matrix [rows, classes], over a temperature, and
// returns the number of rows. Errors call the expert as the text does.
func Priors(
	expert string, temperature float64, logitsArray, logitsSchema, outArray, outSchema int64,
) (rows int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("logits", logitsArray, logitsSchema)
	out := c.fill(outArray, outSchema)
	logits := c.matrix(input)
	if c.err != nil {
		return 0, c.err
	}
	predictions, priors, err := routing.Priors(logits, temperature, expert)
	if err != nil {
		return 0, err
	}
	return give(out, tables.PriorsToRecord(resultMemory, predictions, priors)), nil
}

// FeatureNorms exports the float32 array of the l1 norms of the rows of features, a matrix [rows,
// channels], and returns the number of rows.
func FeatureNorms(
	featuresArray, featuresSchema, outArray, outSchema int64,
) (rows int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("features", featuresArray, featuresSchema)
	out := c.fill(outArray, outSchema)
	features := c.matrix(input)
	if c.err != nil {
		return 0, c.err
	}
	norms, err := routing.L1Norms(features)
	if err != nil {
		return 0, err
	}
	return giveArray(out, float32s(norms)), nil
}

// Combine exports the float32 array of the ensemble's log-probabilities, row after row, from
// matrices of logits [rows, classes] of the light and the heavy expert, and returns its length.
func Combine(
	weight float64, lightArray, lightSchema, heavyArray, heavySchema, outArray, outSchema int64,
) (values int64, err error) {
	defer fault.Recover(&err)
	return ofPair(lightArray, lightSchema, heavyArray, heavySchema, outArray, outSchema,
		func(light, heavy tensor.View) ([]float32, error) {
			return routing.Combine(light, heavy, weight)
		})
}

// Agreement exports the float32 array of the agreement of two views of the same images, matrices of
// logits [rows, classes], and returns the number of rows.
func Agreement(
	firstArray, firstSchema, secondArray, secondSchema, outArray, outSchema int64,
) (rows int64, err error) {
	defer fault.Recover(&err)
	return ofPair(firstArray, firstSchema, secondArray, secondSchema, outArray, outSchema,
		routing.Agreements)
}

// ofPair exports what two matrices of logits give and returns its length.
func ofPair(
	aArray, aSchema, bArray, bSchema, outArray, outSchema int64,
	of func(a, b tensor.View) ([]float32, error),
) (values int64, err error) {
	var c call
	defer c.release()
	aInput, bInput := c.take("logits", aArray, aSchema), c.take("logits", bArray, bSchema)
	out := c.fill(outArray, outSchema)
	a, b := c.matrix(aInput), c.matrix(bInput)
	if c.err != nil {
		return 0, c.err
	}
	found, err := of(a, b)
	if err != nil {
		return 0, err
	}
	return giveArray(out, float32s(found)), nil
}

// lightWeight is the result of FitLightWeight.
type lightWeight struct {
	LightWeight float64 `json:"light_weight"`
}

// FitLightWeight returns {"light_weight"} as JSON: that of the rows of logits, matrices [rows,
// classes] of the light and the heavy expert, for the column label int64 of a record batch, from
// the rows alone that may choose.
func FitLightWeight(
	lightArray, lightSchema, heavyArray, heavySchema, labelsArray, labelsSchema int64,
) (weight string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	lightInput := c.take("logits", lightArray, lightSchema)
	heavyInput := c.take("logits", heavyArray, heavySchema)
	labelsInput := c.take("labels", labelsArray, labelsSchema)
	light, heavy := c.matrix(lightInput), c.matrix(heavyInput)
	labels := read(&c, labelsInput, tables.LabelsFromRecord)
	if c.err != nil {
		return "", c.err
	}
	found, err := routing.FitLightWeight(light, heavy, labels)
	return encode[lightWeight](lightWeight{found}, err)
}

// temperatureFit is the result of FitTemperature.
type temperatureFit struct {
	Temperature float64 `json:"temperature"`
}

// FitTemperature returns {"temperature"} as JSON: that of the rows of logits, a matrix [rows,
// classes], for the column label int64 of a record batch, from the rows alone that may choose.
func FitTemperature(
	logitsArray, logitsSchema, labelsArray, labelsSchema int64,
) (temperature string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	logitsInput := c.take("logits", logitsArray, logitsSchema)
	labelsInput := c.take("labels", labelsArray, labelsSchema)
	logits := c.matrix(logitsInput)
	labels := read(&c, labelsInput, tables.LabelsFromRecord)
	if c.err != nil {
		return "", c.err
	}
	found, err := routing.FitTemperature(logits, labels)
	return encode[temperatureFit](temperatureFit{found}, err)
}

// Route exports the int64 array of the rows whose prior is below the threshold and returns how
// many. The matrix holds logits [rows, classes], for the prior l1_norm features.
func Route(
	prior string, temperature, threshold float64, matrixArray, matrixSchema, outArray,
	outSchema int64,
) (escalated int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("logits", matrixArray, matrixSchema)
	out := c.fill(outArray, outSchema)
	matrix := c.matrix(input)
	if c.err != nil {
		return 0, c.err
	}
	rows, err := routing.Rule{Prior: prior, Temperature: temperature,
		Threshold: threshold}.Route(matrix)
	if err != nil {
		return 0, err
	}
	return giveArray(out, int64s(rows)), nil
}
