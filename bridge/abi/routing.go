package abi

import (
	"agflow/bridge/arrowfile"
	"agflow/bridge/carrow"
	"agflow/core/fault"
	"agflow/core/routing"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
)

// Priors exports the record {prediction int64, and a float32 column for each prior that logits give} of the rows of
// logits, a matrix [rows, classes], over a temperature, and returns the number of rows.
func Priors(temperature float64, logitsArray, logitsSchema, outArray, outSchema int64) (rows int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("logits", logitsArray, logitsSchema)
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	logits, err := input.Matrix()
	if err != nil {
		return 0, err
	}
	predictions, priors, err := routing.Priors(logits, temperature)
	if err != nil {
		return 0, err
	}
	return give(out, arrowfile.PriorsToRecord(resultMemory, predictions, priors)), nil
}

// FeatureNorms exports the float32 array of the l1 norms of the rows of features, a matrix [rows, channels], and returns the
// number of rows.
func FeatureNorms(featuresArray, featuresSchema, outArray, outSchema int64) (rows int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("features", featuresArray, featuresSchema)
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	features, err := input.Matrix()
	if err != nil {
		return 0, err
	}
	norms, err := routing.L1Norms(features)
	if err != nil {
		return 0, err
	}
	giveArray(out, float32s(norms))
	return int64(len(norms)), nil
}

// Combine exports the float32 array of the answers of both experts, row after row, from matrices of logits [rows, classes] of
// the light and the heavy one, and returns its length.
func Combine(weight float64, lightArray, lightSchema, heavyArray, heavySchema, outArray, outSchema int64) (values int64, err error) {
	return fromPair(lightArray, lightSchema, heavyArray, heavySchema, outArray, outSchema, func(light, heavy tensor.View) ([]float32, error) {
		return routing.Combine(light, heavy, weight)
	})
}

// Agreement exports the float32 array of the agreement of two looks, matrices of logits [rows, classes], and returns the
// number of rows.
func Agreement(firstArray, firstSchema, secondArray, secondSchema, outArray, outSchema int64) (rows int64, err error) {
	return fromPair(firstArray, firstSchema, secondArray, secondSchema, outArray, outSchema, routing.Agreements)
}

// fromPair exports what two matrices of logits give and returns its length.
func fromPair(aArray, aSchema, bArray, bSchema, outArray, outSchema int64, of func(a, b tensor.View) ([]float32, error)) (values int64, err error) {
	defer fault.Recover(&err)
	aInput, bInput := carrow.Take("logits", aArray, aSchema), carrow.Take("logits", bArray, bSchema)
	defer bInput.Release()
	defer aInput.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	a, err := aInput.Matrix()
	if err != nil {
		return 0, err
	}
	b, err := bInput.Matrix()
	if err != nil {
		return 0, err
	}
	made, err := of(a, b)
	if err != nil {
		return 0, err
	}
	giveArray(out, float32s(made))
	return int64(len(made)), nil
}

// FitLightWeight returns {"light_weight"} as JSON: that of the rows of logits, matrices [rows, classes] of the light and the heavy
// expert, for the column label int64 of a record batch, from the rows alone that may choose.
func FitLightWeight(lightArray, lightSchema, heavyArray, heavySchema, labelsArray, labelsSchema int64) (weight string, err error) {
	defer fault.Recover(&err)
	lightInput, heavyInput := carrow.Take("logits", lightArray, lightSchema), carrow.Take("logits", heavyArray, heavySchema)
	labelsInput := carrow.Take("labels", labelsArray, labelsSchema)
	defer labelsInput.Release()
	defer heavyInput.Release()
	defer lightInput.Release()
	light, err := lightInput.Matrix()
	if err != nil {
		return "", err
	}
	heavy, err := heavyInput.Matrix()
	if err != nil {
		return "", err
	}
	labels, err := readLabels(labelsInput)
	if err != nil {
		return "", err
	}
	found, err := routing.FitLightWeight(light, heavy, labels)
	if err != nil {
		return "", err
	}
	return encode(map[string]float64{"light_weight": found})
}

// FitTemperature returns {"temperature"} as JSON: that of the rows of logits, a matrix [rows, classes], for the column
// label int64 of a record batch, from the rows alone that may choose.
func FitTemperature(logitsArray, logitsSchema, labelsArray, labelsSchema int64) (temperature string, err error) {
	defer fault.Recover(&err)
	logitsInput, labelsInput := carrow.Take("logits", logitsArray, logitsSchema), carrow.Take("labels", labelsArray, labelsSchema)
	defer labelsInput.Release()
	defer logitsInput.Release()
	logits, err := logitsInput.Matrix()
	if err != nil {
		return "", err
	}
	labels, err := readLabels(labelsInput)
	if err != nil {
		return "", err
	}
	found, err := routing.FitTemperature(logits, labels)
	if err != nil {
		return "", err
	}
	return encode(map[string]float64{"temperature": found})
}

// Route exports the int64 array of the rows whose prior is below the threshold and returns how many. The matrix holds
// logits [rows, classes], for the prior l1_norm features.
func Route(prior string, temperature, threshold float64, matrixArray, matrixSchema, outArray, outSchema int64) (escalated int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("logits", matrixArray, matrixSchema)
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	matrix, err := input.Matrix()
	if err != nil {
		return 0, err
	}
	rows, err := routing.Rule{Prior: prior, Temperature: temperature, Threshold: threshold}.Route(matrix)
	if err != nil {
		return 0, err
	}
	giveArray(out, int64s(rows))
	return int64(len(rows)), nil
}

// CalibrateRouter finds the router that a request asks for (routing.Request) and returns it as JSON, the content of
// router.json.
func CalibrateRouter(request string, predictionsArray, predictionsSchema int64) (router string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("predictions", predictionsArray, predictionsSchema)
	defer input.Release()
	var asked routing.Request
	if err := decode(request, &asked); err != nil {
		return "", err
	}
	samples, err := readSamples(input)
	if err != nil {
		return "", err
	}
	found, err := routing.NewRouter(samples.Samples, asked)
	if err != nil {
		return "", err
	}
	return encode(found)
}

// WriteRouter writes a router, given as JSON, to a file, whole or not at all, and returns the file's bytes.
func WriteRouter(path, router string) (bytes int64, err error) {
	defer fault.Recover(&err)
	found, err := routing.ParseRouter([]byte(router))
	if err != nil {
		return 0, err
	}
	return arrowfile.WriteRouter(path, found)
}

// ReadRouter returns the router of a file as JSON.
func ReadRouter(path string) (router string, err error) {
	defer fault.Recover(&err)
	found, err := arrowfile.ReadRouter(path)
	if err != nil {
		return "", err
	}
	return encode(found)
}

// Curve exports the curve over the thresholds of a prior, "" for the first, thinned to at most the points of a request
// {"prior":"","answers":"heavy","points":200}, and returns its number of points. The costs are in the predictions' metadata.
func Curve(request string, predictionsArray, predictionsSchema, outArray, outSchema int64) (points int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("predictions", predictionsArray, predictionsSchema)
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	asked := struct {
		Prior   string `json:"prior"`
		Answers string `json:"answers"`
		Points  int    `json:"points"`
	}{"", routing.HeavyAnswers, 200}
	if err := decode(request, &asked); err != nil {
		return 0, err
	}
	samples, err := readSamples(input)
	if err != nil {
		return 0, err
	}
	if asked.Prior == "" {
		asked.Prior = samples.Priors[0].Name
	}
	curve, err := samples.Curve(asked.Prior, asked.Answers, asked.Points)
	if err != nil {
		return 0, err
	}
	return give(out, arrowfile.CurveToRecord(resultMemory, curve, samples, asked.Prior, asked.Answers)), nil
}

// Ledger counts the cost of a cascade from {"light_macs","heavy_macs","shared_macs","samples","escalated"} and
// returns it as JSON.
func Ledger(request string) (ledger string, err error) {
	defer fault.Recover(&err)
	var asked struct {
		Light     int64 `json:"light_macs"`
		Heavy     int64 `json:"heavy_macs"`
		Shared    int64 `json:"shared_macs"`
		Samples   int64 `json:"samples"`
		Escalated int64 `json:"escalated"`
	}
	if err := decode(request, &asked); err != nil {
		return "", err
	}
	cost := routing.Cost{Light: asked.Light, Heavy: asked.Heavy, Shared: asked.Shared}
	found, err := routing.NewLedger(cost, asked.Samples, asked.Escalated)
	if err != nil {
		return "", err
	}
	return encode(found)
}

func readLabels(in *carrow.Input) (labels []int64, err error) {
	err = read(in, func(rec arrow.Record) (err error) {
		labels, err = arrowfile.LabelsFromRecord(rec)
		return err
	})
	return labels, err
}

func readSamples(in *carrow.Input) (samples arrowfile.Samples, err error) {
	err = read(in, func(rec arrow.Record) (err error) {
		samples, err = arrowfile.SamplesFromRecord(rec)
		return err
	})
	return samples, err
}
