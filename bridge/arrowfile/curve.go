package arrowfile

import (
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// CurveToRecord has one row a threshold: threshold float64; escalated int64; escalation, accuracy, charged,
// uncharged, random_accuracy float64. Its metadata is that of the predictions it was made from, costs included.
func CurveToRecord(alloc memory.Allocator, points []routing.Point, from Predictions) arrow.Record {
	floats := func(value func(routing.Point) float64) []float64 {
		out := make([]float64, len(points))
		for i, p := range points {
			out[i] = value(p)
		}
		return out
	}
	escalated := make([]int64, len(points))
	for i, p := range points {
		escalated[i] = p.Escalated
	}
	c := columns{alloc: alloc}
	c.float64s("threshold", floats(func(p routing.Point) float64 { return p.Threshold }))
	c.int64s("escalated", escalated)
	c.float64s("escalation", floats(func(p routing.Point) float64 { return p.Escalation }))
	c.float64s("accuracy", floats(func(p routing.Point) float64 { return p.Accuracy }))
	c.float64s("charged", floats(func(p routing.Point) float64 { return p.Charged }))
	c.float64s("uncharged", floats(func(p routing.Point) float64 { return p.Uncharged }))
	c.float64s("random_accuracy", floats(func(p routing.Point) float64 { return p.RandomAccuracy }))
	return c.record(KindCurve, from.pairs())
}

// CurveFromRecord copies the points out of a record batch.
func CurveFromRecord(rec arrow.Record) ([]routing.Point, error) {
	x := extract(rec, KindCurve)
	thresholds, escalated, escalations := x.float64s("threshold"), x.int64s("escalated"), x.float64s("escalation")
	accuracies, charged, uncharged := x.float64s("accuracy"), x.float64s("charged"), x.float64s("uncharged")
	random := x.float64s("random_accuracy")
	if x.err != nil {
		return nil, x.err
	}
	points := make([]routing.Point, len(thresholds))
	for i := range points {
		points[i] = routing.Point{
			Threshold: thresholds[i], Escalated: escalated[i], Escalation: escalations[i], Accuracy: accuracies[i],
			Charged: charged[i], Uncharged: uncharged[i], RandomAccuracy: random[i],
		}
	}
	return points, nil
}
