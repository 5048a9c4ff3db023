package abi

import (
	"math"
	"strings"
	"testing"

	"agflow/core/fault"
)

func second[T any](_ T, err error) error { return err }

// failing are calls that fail for inputs which are matrices of one row of three channels: a matrix
// is no table, and three channels fit no layer of two. They are given an open session.
var failing = map[string]func(id int64, a, b, out wire) error{
	"StatisticsAdd": func(id int64, a, b, _ wire) error {
		return second(StatisticsAdd(id, 0, 1, a.array, a.schema, b.array, b.schema))
	},
	"StatisticsAdd, closed": func(_ int64, a, b, _ wire) error {
		return second(StatisticsAdd(999, 0, 1, a.array, a.schema, b.array, b.schema))
	},
	"StatisticsAdd, layer": func(id int64, a, b, _ wire) error {
		return second(StatisticsAdd(id, 9, 1, a.array, a.schema, b.array, b.schema))
	},
	"StatisticsAddWeight": func(id int64, a, b, _ wire) error {
		defer free(b)
		return second(StatisticsAddWeight(id, 0, 0, a.array, a.schema))
	},
	"StatisticsAddWeightGradient": func(id int64, a, b, _ wire) error {
		return second(StatisticsAddWeightGradient(id, 0, 0, a.array, a.schema, b.array, b.schema))
	},
	"StatisticsAddSums": func(id int64, a, b, _ wire) error {
		defer free(b)
		return second(StatisticsAddSums(id, 0, 1, 1, a.array, a.schema))
	},
	"AbsYG, no workers": func(_ int64, a, b, out wire) error {
		return second(AbsYG(0, a.array, a.schema, b.array, b.schema, out.array, out.schema))
	},
	"AbsYG, result in use": func(_ int64, a, b, out wire) error {
		return second(AbsYG(1, a.array, a.schema, b.array, b.schema, b.array, b.schema))
	},
	"ReadLimit, endless workers": func(_ int64, a, b, _ wire) error {
		defer free(b)
		return second(ReadLimit(math.MaxInt64, a.array, a.schema))
	},
	"TopK": func(_ int64, a, b, out wire) error {
		defer free(b)
		return second(TopK(1, 1, a.array, a.schema, out.array, out.schema))
	},
	"Diagnose": func(_ int64, a, b, _ wire) error {
		defer free(b)
		return second(Diagnose(`{}`, a.array, a.schema))
	},
	"Diagnose, misspelt": func(_ int64, a, b, _ wire) error {
		defer free(b)
		return second(Diagnose(`{"criterium":"agf"}`, a.array, a.schema))
	},
	"Stability": func(_ int64, a, b, _ wire) error {
		defer free(b)
		return second(Stability(`{"tables":1}`, a.array, a.schema))
	},
	"AgainstRandom": func(_ int64, a, b, _ wire) error {
		free(a)
		free(b)
		return second(AgainstRandom(`{"pictures":1}`))
	},
	"StatisticsMerge": func(_ int64, a, b, out wire) error {
		return second(StatisticsMerge(a.array, a.schema, b.array, b.schema, out.array, out.schema))
	},
	"StatisticsMerge, result in use": func(_ int64, a, b, out wire) error {
		return second(StatisticsMerge(a.array, a.schema, b.array, b.schema, a.array, a.schema))
	},
	"Score": func(_ int64, a, b, out wire) error {
		defer free(b)
		return second(Score("agf", 0, a.array, a.schema, out.array, out.schema))
	},
	"Plan": func(_ int64, a, b, out wire) error {
		return second(Plan(`{}`, a.array, a.schema, b.array, b.schema, out.array, out.schema))
	},
	"Plan, misspelt": func(_ int64, a, b, out wire) error {
		return second(Plan(`{"prune_ratio":1}`, a.array, a.schema, b.array, b.schema, out.array,
			out.schema))
	},
	"Diff": func(_ int64, a, b, _ wire) error {
		return second(Diff(a.array, a.schema, b.array, b.schema))
	},
	"Route, no result": func(_ int64, a, b, out wire) error {
		defer free(b)
		return second(Route("energy", 1, 0.5, a.array, a.schema, 0, 0))
	},
	"Combine": func(_ int64, a, b, out wire) error {
		return second(Combine(2, a.array, a.schema, b.array, b.schema, out.array, out.schema))
	},
	"Agreement, no result": func(_ int64, a, b, out wire) error {
		return second(Agreement(a.array, a.schema, b.array, b.schema, 0, 0))
	},
	"FitLightWeight": func(_ int64, a, b, _ wire) error {
		return second(FitLightWeight(a.array, a.schema, b.array, b.schema, 0, 0))
	},
	"Curve, answers misspelt": func(_ int64, a, b, out wire) error {
		defer free(b)
		return second(Curve(`{"answer":"both"}`, a.array, a.schema, out.array, out.schema))
	},
	"Curve": func(_ int64, a, b, out wire) error {
		defer free(b)
		return second(Curve(`{}`, a.array, a.schema, out.array, out.schema))
	},
	"CalibrateRouter": func(_ int64, a, b, _ wire) error {
		defer free(b)
		return second(CalibrateRouter(`{}`, a.array, a.schema))
	},
	"Rank": func(_ int64, a, b, _ wire) error {
		defer free(b)
		return second(Rank(a.array, a.schema))
	},
	"EvaluateRouter": func(_ int64, a, b, _ wire) error {
		defer free(b)
		router := `{"format":3,"prior":"max_probability","temperature":1,"answers":"heavy"}`
		return second(EvaluateRouter(router, a.array, a.schema))
	},
	"EvaluateRouter, no router": func(_ int64, a, b, _ wire) error {
		defer free(b)
		return second(EvaluateRouter(`{}`, a.array, a.schema))
	},
	"Oracle": func(_ int64, a, b, _ wire) error {
		defer free(b)
		return second(Oracle("heavy", a.array, a.schema))
	},
	"WriteFile": func(_ int64, a, b, _ wire) error {
		defer free(b)
		return second(WriteFile("/none/x", a.array, a.schema))
	},
	"ReadFile": func(_ int64, a, b, out wire) error {
		free(a)
		free(b)
		return second(ReadFile("/none", "plan", out.array, out.schema))
	},
}

// TestErrorsReleaseInputsAndLeaveResults proves for every call with Arrow arguments that an error
// gives the inputs back and leaves the result structs zeroed.
func TestErrorsReleaseInputsAndLeaveResults(t *testing.T) {
	c := newCaller(t)
	id := open(t)
	defer closeSessionOf(t, id)
	for name, call := range failing {
		a, b, out := c.matrix(3, 1, 2, 3), c.matrix(3, 1, 2, 3), c.empty()
		err := call(id, a, b, out)
		if err == nil || !strings.HasPrefix(err.Error(), "agflow:") ||
			fault.CodeOf(err) == fault.Internal {
			t.Errorf("%s: %v", name, err)
		}
		if !released(a) || !released(b) || !untouched(out) {
			t.Errorf("%s: inputs released %v, %v; result untouched %v",
				name, released(a), released(b), untouched(out))
		}
	}
}

// TestPanicBecomesAnError proves it by taking away the memory for results in the middle of a call.
func TestPanicBecomesAnError(t *testing.T) {
	c := newCaller(t)
	kept := resultMemory
	resultMemory = nil
	defer func() { resultMemory = kept }()
	in, out := c.matrix(2, 0, 1), c.empty()
	_, err := Route("max_probability", 1, 0.9, in.array, in.schema, out.array, out.schema)
	if fault.CodeOf(err) != fault.Internal || !released(in) || !untouched(out) {
		t.Errorf("%v; input released %v, result untouched %v", err, released(in), untouched(out))
	}
}
