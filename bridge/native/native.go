// Package native is what gopy binds for the extension module agflow._core._native: the calls of package abi, unchanged.
// Parameters are int64, float64 and string only, results (int64, error) or (string, error): gopy leaks or drops the rest.
package native

import "agflow/bridge/abi"

func Version() (string, error) { return abi.Version() }

func LiveBytes() (int64, error) { return abi.LiveBytes() }

func Sessions() (int64, error) { return abi.Sessions() }

func ReleaseAddress() (int64, error) { return abi.ReleaseAddress() }

func Kernel() (string, error) { return abi.Kernel() }

func StatisticsOpen(spec string) (int64, error) { return abi.StatisticsOpen(spec) }

func StatisticsAdd(id, layer, samples, yArray, ySchema, gArray, gSchema int64) (int64, error) {
	return abi.StatisticsAdd(id, layer, samples, yArray, ySchema, gArray, gSchema)
}

func StatisticsAddSums(id, layer, samples, rows, sumsArray, sumsSchema int64) (int64, error) {
	return abi.StatisticsAddSums(id, layer, samples, rows, sumsArray, sumsSchema)
}

func StatisticsAddWeight(id, layer, unitAxis, wArray, wSchema int64) (int64, error) {
	return abi.StatisticsAddWeight(id, layer, unitAxis, wArray, wSchema)
}

func StatisticsAddWeightGradient(id, layer, unitAxis, wArray, wSchema, dwArray, dwSchema int64) (int64, error) {
	return abi.StatisticsAddWeightGradient(id, layer, unitAxis, wArray, wSchema, dwArray, dwSchema)
}

func StatisticsTable(id, outArray, outSchema int64) (int64, error) {
	return abi.StatisticsTable(id, outArray, outSchema)
}

func StatisticsClose(id int64) (int64, error) { return abi.StatisticsClose(id) }

func StatisticsMerge(aArray, aSchema, bArray, bSchema, outArray, outSchema int64) (int64, error) {
	return abi.StatisticsMerge(aArray, aSchema, bArray, bSchema, outArray, outSchema)
}

func AbsYG(workers, yArray, ySchema, gArray, gSchema, outArray, outSchema int64) (int64, error) {
	return abi.AbsYG(workers, yArray, ySchema, gArray, gSchema, outArray, outSchema)
}

func ReadLimit(workers, mArray, mSchema int64) (int64, error) {
	return abi.ReadLimit(workers, mArray, mSchema)
}

func TopK(k, workers, scoresArray, scoresSchema, outArray, outSchema int64) (int64, error) {
	return abi.TopK(k, workers, scoresArray, scoresSchema, outArray, outSchema)
}

func Criteria() (string, error) { return abi.Criteria() }

func Score(criterion string, seed, tableArray, tableSchema, outArray, outSchema int64) (int64, error) {
	return abi.Score(criterion, seed, tableArray, tableSchema, outArray, outSchema)
}

func Plan(request string, tableArray, tableSchema, latencyArray, latencySchema, outArray, outSchema int64) (string, error) {
	return abi.Plan(request, tableArray, tableSchema, latencyArray, latencySchema, outArray, outSchema)
}

func Diff(aArray, aSchema, bArray, bSchema int64) (string, error) {
	return abi.Diff(aArray, aSchema, bArray, bSchema)
}

func Diagnose(request string, tableArray, tableSchema int64) (string, error) {
	return abi.Diagnose(request, tableArray, tableSchema)
}

func Stability(request string, tablesArray, tablesSchema int64) (string, error) {
	return abi.Stability(request, tablesArray, tablesSchema)
}

func AgainstRandom(request string) (string, error) { return abi.AgainstRandom(request) }

func Priors(temperature float64, logitsArray, logitsSchema, outArray, outSchema int64) (int64, error) {
	return abi.Priors(temperature, logitsArray, logitsSchema, outArray, outSchema)
}

func FeatureNorms(featuresArray, featuresSchema, outArray, outSchema int64) (int64, error) {
	return abi.FeatureNorms(featuresArray, featuresSchema, outArray, outSchema)
}

func Combine(weight float64, lightArray, lightSchema, heavyArray, heavySchema, outArray, outSchema int64) (int64, error) {
	return abi.Combine(weight, lightArray, lightSchema, heavyArray, heavySchema, outArray, outSchema)
}

func Agreement(firstArray, firstSchema, secondArray, secondSchema, outArray, outSchema int64) (int64, error) {
	return abi.Agreement(firstArray, firstSchema, secondArray, secondSchema, outArray, outSchema)
}

func FitLightWeight(lightArray, lightSchema, heavyArray, heavySchema, labelsArray, labelsSchema int64) (string, error) {
	return abi.FitLightWeight(lightArray, lightSchema, heavyArray, heavySchema, labelsArray, labelsSchema)
}

func FitTemperature(logitsArray, logitsSchema, labelsArray, labelsSchema int64) (string, error) {
	return abi.FitTemperature(logitsArray, logitsSchema, labelsArray, labelsSchema)
}

func Route(prior string, temperature, threshold float64, matrixArray, matrixSchema, outArray, outSchema int64) (int64, error) {
	return abi.Route(prior, temperature, threshold, matrixArray, matrixSchema, outArray, outSchema)
}

func CalibrateRouter(request string, predictionsArray, predictionsSchema int64) (string, error) {
	return abi.CalibrateRouter(request, predictionsArray, predictionsSchema)
}

func WriteRouter(path, router string) (int64, error) { return abi.WriteRouter(path, router) }

func ReadRouter(path string) (string, error) { return abi.ReadRouter(path) }

func Curve(request string, predictionsArray, predictionsSchema, outArray, outSchema int64) (int64, error) {
	return abi.Curve(request, predictionsArray, predictionsSchema, outArray, outSchema)
}

func Ledger(request string) (string, error) { return abi.Ledger(request) }

func Rank(predictionsArray, predictionsSchema int64) (string, error) {
	return abi.Rank(predictionsArray, predictionsSchema)
}

func EvaluateRouter(router string, predictionsArray, predictionsSchema int64) (string, error) {
	return abi.EvaluateRouter(router, predictionsArray, predictionsSchema)
}

func Oracle(answers string, predictionsArray, predictionsSchema int64) (string, error) {
	return abi.Oracle(answers, predictionsArray, predictionsSchema)
}

func DynamicRange(valuesArray, valuesSchema int64) (string, error) {
	return abi.DynamicRange(valuesArray, valuesSchema)
}

func WriteFile(path string, array, schema int64) (int64, error) {
	return abi.WriteFile(path, array, schema)
}

func ReadFile(path, kind string, outArray, outSchema int64) (int64, error) {
	return abi.ReadFile(path, kind, outArray, outSchema)
}
