package abi

import (
	"path/filepath"
	"strings"
	"testing"

	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// logits are those of three rows and two classes.
func (c *caller) logits() wire { return c.matrix(2, 5, 0, 0, 0, 0, 9) }

// predictions are 100 samples that both experts get right.
func (c *caller) predictions() wire {
	p := tables.Predictions{Temperature: 1,
		Cost: routing.Cost{Light: 20, Heavy: 100, Unit: routing.MACs}}
	p.Priors = []routing.Prior{{Name: "max_probability"}}
	for i := range int64(100) {
		class := i % 3
		p.Label, p.Light = append(p.Label, class), append(p.Light, class)
		p.Heavy = append(p.Heavy, class)
		p.Priors[0].Values = append(p.Priors[0].Values, float32(i)/100)
	}
	return c.record(tables.PredictionsToRecord(c.memory, p))
}

// TestPriorsAndRoute proves the calls that read the logits of one expert.
func TestPriorsAndRoute(t *testing.T) {
	c := newCaller(t)
	in, out := c.logits(), c.empty()
	rows, err := Priors("light expert", 1, in.array, in.schema, out.array, out.schema)
	if err != nil || rows != 3 {
		t.Fatal(rows, err)
	}
	c.result(out, func(rec arrow.Record) {
		classes, priors := rec.Column(0).(*array.Int64), rec.Column(1).(*array.Float32)
		if classes.Value(0) != 0 || classes.Value(2) != 1 || priors.Value(1) != 0.5 {
			t.Errorf("%v", rec)
		}
	})
	in, out = c.logits(), c.empty()
	found, err := Route("max_probability", 1, 0.9, in.array, in.schema, out.array, out.schema)
	if err != nil || found != 1 {
		t.Fatal(found, err)
	}
	free(out)
	in, out = c.logits(), c.empty()
	rows, err = FeatureNorms(in.array, in.schema, out.array, out.schema)
	if err != nil || rows != 3 {
		t.Fatal(rows, err)
	}
	free(out)
	in = c.logits()
	text, err := DynamicRange(in.array, in.schema)
	if err != nil || !strings.Contains(text, `"max":9,"median":0,`) {
		t.Error(text, err)
	}
}

// TestTwoSetsOfLogits proves the calls that read the logits of both experts, or of two views.
func TestTwoSetsOfLogits(t *testing.T) {
	c := newCaller(t)
	a, b, out := c.logits(), c.logits(), c.empty()
	values, err := Combine(0.5, a.array, a.schema, b.array, b.schema, out.array, out.schema)
	if err != nil || values != 6 {
		t.Fatal(values, err)
	}
	free(out)
	a, b, out = c.logits(), c.logits(), c.empty()
	rows, err := Agreement(a.array, a.schema, b.array, b.schema, out.array, out.schema)
	if err != nil || rows != 3 {
		t.Fatal(rows, err)
	}
	free(out)
	a, b, labels := c.logits(), c.logits(), c.predictions() // 100 labels for 3 rows
	text, err := FitLightWeight(a.array, a.schema, b.array, b.schema, labels.array, labels.schema)
	if fault.CodeOf(err) != fault.Shape {
		t.Error(text, err)
	}
	a, labels = c.logits(), c.predictions()
	text, err = FitTemperature(a.array, a.schema, labels.array, labels.schema)
	if fault.CodeOf(err) != fault.Shape {
		t.Error(text, err)
	}
}

// TestRouterFromPredictions proves the calls that make, keep and evaluate a router.
func TestRouterFromPredictions(t *testing.T) {
	c := newCaller(t)
	in := c.predictions()
	text, err := CalibrateRouter(`{"tolerance":0.1,"confidence":0.9}`, in.array, in.schema)
	if err != nil || !strings.Contains(text, `"verdict"`) {
		t.Error(text, err)
	}
	path := filepath.Join(t.TempDir(), "router.json")
	if _, err := WriteRouter(path, text); err != nil {
		t.Fatal(err)
	}
	if back, err := ReadRouter(path); err != nil || back != text {
		t.Errorf("%s, %v; expected %s", back, err, text)
	}
	in = c.predictions()
	found, err := EvaluateRouter(text, in.array, in.schema)
	if err != nil || !strings.Contains(found, `"lost":0,"gained":0,"difference":{"observed":0,`) {
		t.Error(found, err)
	}
}

// TestCurveAndItsEnds proves the calls about all thresholds.
func TestCurveAndItsEnds(t *testing.T) {
	c := newCaller(t)
	in, out := c.predictions(), c.empty()
	points, err := Curve(`{"points":10}`, in.array, in.schema, out.array, out.schema)
	if err != nil || points < 2 || points > 10 {
		t.Fatal(points, err)
	}
	free(out)
	in = c.predictions()
	text, err := Rank(in.array, in.schema)
	if err != nil || !strings.Contains(text, `"auroc":0.5,"low":0,"high":1,"errors":0`) {
		t.Error(text, err)
	}
	in = c.predictions()
	text, err = Oracle("heavy", in.array, in.schema)
	if err != nil || !strings.Contains(text, `"charged":0.2,`) {
		t.Error(text, err)
	}
	request := `{"light_cost":20,"heavy_cost":100,"shared_cost":0,"cost_unit":"EUR",` +
		`"samples":10,"escalated":5}`
	text, err = Ledger(request)
	if err != nil || !strings.Contains(text, `"charged":0.7`) {
		t.Error(text, err)
	}
	if text, err := Criteria(); err != nil || !strings.Contains(text, `"agf_relative"`) {
		t.Error(text, err)
	}
}
