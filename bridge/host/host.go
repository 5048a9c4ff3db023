// Package host exports the calls of package abi from a Go executable, for the Python that it hosts: C functions
// agflow_abi_<name>, found in the process itself. Importing the package is enough.
//
// Every call takes the arguments of its abi function (texts as UTF-8 C strings, which stay the caller's), then where
// to put the number and the text of its result. It returns 0, or 1 when text is an error. A text belongs to the
// caller, who frees it with agflow_abi_free.
package host

/*
#include <stdint.h>
#include <stdlib.h>
*/
import "C"

import (
	"unsafe"

	"agflow/bridge/abi"
)

// answer writes the result of a call that returns a number.
func answer(number *C.int64_t, text **C.char, result int64, err error) C.int32_t {
	if err != nil {
		*text = C.CString(err.Error())
		return 1
	}
	*number = C.int64_t(result)
	return 0
}

// answerText writes the result of a call that returns a text.
func answerText(text **C.char, result string, err error) C.int32_t {
	if err != nil {
		*text = C.CString(err.Error())
		return 1
	}
	*text = C.CString(result)
	return 0
}

// agflow_abi_version marks the process as a host, and says which list of calls it has.
//
//export agflow_abi_version
func agflow_abi_version() C.int32_t { return abi.Number }

//export agflow_abi_free
func agflow_abi_free(text *C.char) { C.free(unsafe.Pointer(text)) }

//export agflow_abi_version_text
func agflow_abi_version_text(number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Version()
	return answerText(text, result, err)
}

//export agflow_abi_live_bytes
func agflow_abi_live_bytes(number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.LiveBytes()
	return answer(number, text, result, err)
}

//export agflow_abi_sessions
func agflow_abi_sessions(number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Sessions()
	return answer(number, text, result, err)
}

//export agflow_abi_release_address
func agflow_abi_release_address(number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.ReleaseAddress()
	return answer(number, text, result, err)
}

//export agflow_abi_kernel
func agflow_abi_kernel(number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Kernel()
	return answerText(text, result, err)
}

//export agflow_abi_statistics_open
func agflow_abi_statistics_open(spec *C.char, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.StatisticsOpen(C.GoString(spec))
	return answer(number, text, result, err)
}

//export agflow_abi_statistics_add
func agflow_abi_statistics_add(id, layer, samples, yArray, ySchema, gArray, gSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.StatisticsAdd(int64(id), int64(layer), int64(samples), int64(yArray), int64(ySchema), int64(gArray), int64(gSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_statistics_add_sums
func agflow_abi_statistics_add_sums(id, layer, samples, rows, sumsArray, sumsSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.StatisticsAddSums(int64(id), int64(layer), int64(samples), int64(rows), int64(sumsArray), int64(sumsSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_statistics_add_weight
func agflow_abi_statistics_add_weight(id, layer, unitAxis, wArray, wSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.StatisticsAddWeight(int64(id), int64(layer), int64(unitAxis), int64(wArray), int64(wSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_statistics_add_weight_gradient
func agflow_abi_statistics_add_weight_gradient(id, layer, unitAxis, wArray, wSchema, dwArray, dwSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.StatisticsAddWeightGradient(int64(id), int64(layer), int64(unitAxis), int64(wArray), int64(wSchema), int64(dwArray), int64(dwSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_statistics_table
func agflow_abi_statistics_table(id, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.StatisticsTable(int64(id), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_statistics_close
func agflow_abi_statistics_close(id C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.StatisticsClose(int64(id))
	return answer(number, text, result, err)
}

//export agflow_abi_statistics_merge
func agflow_abi_statistics_merge(aArray, aSchema, bArray, bSchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.StatisticsMerge(int64(aArray), int64(aSchema), int64(bArray), int64(bSchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_abs_yg
func agflow_abi_abs_yg(workers, yArray, ySchema, gArray, gSchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.AbsYG(int64(workers), int64(yArray), int64(ySchema), int64(gArray), int64(gSchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_read_limit
func agflow_abi_read_limit(workers, mArray, mSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.ReadLimit(int64(workers), int64(mArray), int64(mSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_top_k
func agflow_abi_top_k(k, workers, scoresArray, scoresSchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.TopK(int64(k), int64(workers), int64(scoresArray), int64(scoresSchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_criteria
func agflow_abi_criteria(number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Criteria()
	return answerText(text, result, err)
}

//export agflow_abi_score
func agflow_abi_score(criterion *C.char, seed, tableArray, tableSchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Score(C.GoString(criterion), int64(seed), int64(tableArray), int64(tableSchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_plan
func agflow_abi_plan(request *C.char, tableArray, tableSchema, latencyArray, latencySchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Plan(C.GoString(request), int64(tableArray), int64(tableSchema), int64(latencyArray), int64(latencySchema), int64(outArray), int64(outSchema))
	return answerText(text, result, err)
}

//export agflow_abi_diff
func agflow_abi_diff(aArray, aSchema, bArray, bSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Diff(int64(aArray), int64(aSchema), int64(bArray), int64(bSchema))
	return answerText(text, result, err)
}

//export agflow_abi_diagnose
func agflow_abi_diagnose(request *C.char, tableArray, tableSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Diagnose(C.GoString(request), int64(tableArray), int64(tableSchema))
	return answerText(text, result, err)
}

//export agflow_abi_stability
func agflow_abi_stability(request *C.char, tablesArray, tablesSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Stability(C.GoString(request), int64(tablesArray), int64(tablesSchema))
	return answerText(text, result, err)
}

//export agflow_abi_against_random
func agflow_abi_against_random(request *C.char, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.AgainstRandom(C.GoString(request))
	return answerText(text, result, err)
}

//export agflow_abi_priors
func agflow_abi_priors(temperature C.double, logitsArray, logitsSchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Priors(float64(temperature), int64(logitsArray), int64(logitsSchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_feature_norms
func agflow_abi_feature_norms(featuresArray, featuresSchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.FeatureNorms(int64(featuresArray), int64(featuresSchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_combine
func agflow_abi_combine(weight C.double, lightArray, lightSchema, heavyArray, heavySchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Combine(float64(weight), int64(lightArray), int64(lightSchema), int64(heavyArray), int64(heavySchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_agreement
func agflow_abi_agreement(firstArray, firstSchema, secondArray, secondSchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Agreement(int64(firstArray), int64(firstSchema), int64(secondArray), int64(secondSchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_fit_light_weight
func agflow_abi_fit_light_weight(lightArray, lightSchema, heavyArray, heavySchema, labelsArray, labelsSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.FitLightWeight(int64(lightArray), int64(lightSchema), int64(heavyArray), int64(heavySchema), int64(labelsArray), int64(labelsSchema))
	return answerText(text, result, err)
}

//export agflow_abi_fit_temperature
func agflow_abi_fit_temperature(logitsArray, logitsSchema, labelsArray, labelsSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.FitTemperature(int64(logitsArray), int64(logitsSchema), int64(labelsArray), int64(labelsSchema))
	return answerText(text, result, err)
}

//export agflow_abi_route
func agflow_abi_route(prior *C.char, temperature, threshold C.double, matrixArray, matrixSchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Route(C.GoString(prior), float64(temperature), float64(threshold), int64(matrixArray), int64(matrixSchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_calibrate_router
func agflow_abi_calibrate_router(request *C.char, predictionsArray, predictionsSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.CalibrateRouter(C.GoString(request), int64(predictionsArray), int64(predictionsSchema))
	return answerText(text, result, err)
}

//export agflow_abi_write_router
func agflow_abi_write_router(path, router *C.char, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.WriteRouter(C.GoString(path), C.GoString(router))
	return answer(number, text, result, err)
}

//export agflow_abi_read_router
func agflow_abi_read_router(path *C.char, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.ReadRouter(C.GoString(path))
	return answerText(text, result, err)
}

//export agflow_abi_curve
func agflow_abi_curve(request *C.char, predictionsArray, predictionsSchema, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Curve(C.GoString(request), int64(predictionsArray), int64(predictionsSchema), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}

//export agflow_abi_ledger
func agflow_abi_ledger(request *C.char, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Ledger(C.GoString(request))
	return answerText(text, result, err)
}

//export agflow_abi_rank
func agflow_abi_rank(predictionsArray, predictionsSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Rank(int64(predictionsArray), int64(predictionsSchema))
	return answerText(text, result, err)
}

//export agflow_abi_evaluate_router
func agflow_abi_evaluate_router(router *C.char, predictionsArray, predictionsSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.EvaluateRouter(C.GoString(router), int64(predictionsArray), int64(predictionsSchema))
	return answerText(text, result, err)
}

//export agflow_abi_oracle
func agflow_abi_oracle(answers *C.char, predictionsArray, predictionsSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.Oracle(C.GoString(answers), int64(predictionsArray), int64(predictionsSchema))
	return answerText(text, result, err)
}

//export agflow_abi_dynamic_range
func agflow_abi_dynamic_range(valuesArray, valuesSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.DynamicRange(int64(valuesArray), int64(valuesSchema))
	return answerText(text, result, err)
}

//export agflow_abi_write_file
func agflow_abi_write_file(path *C.char, array, schema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.WriteFile(C.GoString(path), int64(array), int64(schema))
	return answer(number, text, result, err)
}

//export agflow_abi_read_file
func agflow_abi_read_file(path, kind *C.char, outArray, outSchema C.int64_t, number *C.int64_t, text **C.char) C.int32_t {
	result, err := abi.ReadFile(C.GoString(path), C.GoString(kind), int64(outArray), int64(outSchema))
	return answer(number, text, result, err)
}
