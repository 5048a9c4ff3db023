package abi

import (
	"agflow/bridge/arrowfile"
	"agflow/bridge/carrow"
	"agflow/core/fault"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
)

// Priors exports the record {prediction int64, prior float32} of the rows of logits, a matrix [rows, classes], and
// returns the number of rows.
func Priors(logitsArray, logitsSchema, outArray, outSchema int64) (rows int64, err error) {
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
	predictions, priors, err := routing.MaxProbability(logits)
	if err != nil {
		return 0, err
	}
	return give(out, arrowfile.PriorsToRecord(resultMemory, predictions, priors)), nil
}

// Route exports the int64 array of the rows of logits whose prior is below the threshold and returns how many.
func Route(threshold float64, logitsArray, logitsSchema, outArray, outSchema int64) (escalated int64, err error) {
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
	rows, err := routing.Route(logits, threshold)
	if err != nil {
		return 0, err
	}
	giveArray(out, int64s(rows))
	return int64(len(rows)), nil
}

// CalibrateThreshold finds the threshold that a request {"tolerance","confidence"} asks for and returns it, with its
// verdict, as JSON.
func CalibrateThreshold(request string, predictionsArray, predictionsSchema int64) (threshold string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("predictions", predictionsArray, predictionsSchema)
	defer input.Release()
	var asked struct {
		Tolerance  float64 `json:"tolerance"`
		Confidence float64 `json:"confidence"`
	}
	if err := decode(request, &asked); err != nil {
		return "", err
	}
	predictions, err := readPredictions(input)
	if err != nil {
		return "", err
	}
	found, err := routing.Calibrate(predictions.Outcomes(), asked.Tolerance, asked.Confidence)
	if err != nil {
		return "", err
	}
	return encode(found)
}

// Curve exports the curve over thresholds, thinned to at most the points of a request {"points":200}, and returns
// its number of points. The costs are in the predictions' metadata.
func Curve(request string, predictionsArray, predictionsSchema, outArray, outSchema int64) (points int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("predictions", predictionsArray, predictionsSchema)
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	asked := struct {
		Points int `json:"points"`
	}{200}
	if err := decode(request, &asked); err != nil {
		return 0, err
	}
	predictions, err := readPredictions(input)
	if err != nil {
		return 0, err
	}
	curve, err := routing.Curve(predictions.Outcomes(), predictions.Cost, asked.Points)
	if err != nil {
		return 0, err
	}
	return give(out, arrowfile.CurveToRecord(resultMemory, curve, predictions)), nil
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

func readPredictions(in *carrow.Input) (predictions arrowfile.Predictions, err error) {
	err = read(in, func(rec arrow.Record) (err error) {
		predictions, err = arrowfile.PredictionsFromRecord(rec)
		return err
	})
	return predictions, err
}
