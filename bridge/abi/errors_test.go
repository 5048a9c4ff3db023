package abi

import (
	"math"
	"strings"
	"testing"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow/memory"
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

// scarce is result memory that runs out after so many allocations.
type scarce struct {
	memory.Allocator
	left int
}

func (s *scarce) Allocate(size int) []byte {
	s.take()
	return s.Allocator.Allocate(size)
}

func (s *scarce) Reallocate(size int, b []byte) []byte {
	s.take()
	return s.Allocator.Reallocate(size, b)
}

func (s *scarce) take() {
	if s.left == 0 {
		panic("out of memory")
	}
	s.left--
}

// TestPanicBecomesAnError proves for calls that make every form of result that memory which runs
// out, at whichever allocation, is an error: the inputs are released, the result structs are as
// they were, and what had been allocated is free again.
func TestPanicBecomesAnError(t *testing.T) {
	c := newCaller(t)
	defer func() { resultMemory = results }()
	stored := "../tables/testdata/format4/statistics.arrow"
	none := wire{}
	for name, call := range map[string]struct {
		in  func() wire
		run func(in, out wire) error
	}{
		"an array": {func() wire { return c.matrix(2, 0, 1) }, func(in, out wire) error {
			return second(Route("max_probability", 1, 0.9, in.array, in.schema, out.array,
				out.schema))
		}},
		"floats": {func() wire { return c.matrix(2, 0, 1) }, func(in, out wire) error {
			return second(FeatureNorms(in.array, in.schema, out.array, out.schema))
		}},
		"bits": {func() wire { return c.matrix64(1, 0, 1) }, func(in, out wire) error {
			return second(TopK(1, 1, in.array, in.schema, out.array, out.schema))
		}},
		"a record": {func() wire { return c.matrix(2, 0, 1) }, func(in, out wire) error {
			return second(Priors("expert", 1, in.array, in.schema, out.array, out.schema))
		}},
		"a table": {c.predictions, func(in, out wire) error {
			return second(Curve(`{}`, in.array, in.schema, out.array, out.schema))
		}},
		"a file": {func() wire { return none }, func(_, out wire) error {
			return second(ReadFile(stored, "statistics", out.array, out.schema))
		}},
		"an upgraded table": {func() wire { return c.oldScores(t) }, func(in, out wire) error {
			return second(CheckTable("scores", in.array, in.schema, out.array, out.schema))
		}},
	} {
		for allowed := 0; ; allowed++ {
			resultMemory = &scarce{results, allowed}
			in, out := call.in(), c.empty()
			err := call.run(in, out)
			if in != none && !released(in) {
				t.Errorf("%s: the input of allocation %d was not released", name, allowed)
			}
			if err == nil {
				free(out)
				break
			}
			if live, _ := LiveBytes(); live != 0 || !untouched(out) ||
				fault.CodeOf(err) != fault.Internal {
				t.Errorf("%s: after allocation %d %d bytes are held, result untouched %v: %v",
					name, allowed, live, untouched(out), err)
			}
			if allowed > 1000 {
				t.Fatal(name, err)
			}
		}
	}
}

// oldScores exports a table of an older format.
func (c *caller) oldScores(t *testing.T) (out wire) {
	path := "../tables/testdata/format1/scores.arrow"
	rec, err := ipcfile.Read(path, "scores", c.memory)
	if err != nil {
		t.Fatal(err)
	}
	return c.record(rec)
}
