package tables

import (
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// measure is one number of a point that has an interval.
type measure struct {
	name     string
	value    func(*routing.Point) *float64
	interval func(*routing.Point) *routing.Interval
}

var measures = []measure{
	{"escalation", func(p *routing.Point) *float64 { return &p.Escalation },
		func(p *routing.Point) *routing.Interval { return &p.EscalationInterval }},
	{"accuracy", func(p *routing.Point) *float64 { return &p.Accuracy },
		func(p *routing.Point) *routing.Interval { return &p.AccuracyInterval }},
	{"charged", func(p *routing.Point) *float64 { return &p.Charged },
		func(p *routing.Point) *routing.Interval { return &p.ChargedInterval }},
	{"uncharged", func(p *routing.Point) *float64 { return &p.Uncharged },
		func(p *routing.Point) *routing.Interval { return &p.UnchargedInterval }},
	{"random_accuracy", func(p *routing.Point) *float64 { return &p.RandomAccuracy },
		func(p *routing.Point) *routing.Interval { return &p.RandomInterval }},
}

// CurveToRecord has one row a threshold: threshold float64; escalated int64; and escalation,
// accuracy, charged, uncharged, random_accuracy float64, each followed by the ends of its interval,
// NAME_low and NAME_high. Its metadata is that of the predictions it was made from; agflow.prior
// names the prior that the thresholds are for, what it costs is in agflow.light_cost, and
// agflow.answers, with agflow.light_weight, is there where both experts answer what escalates.
func CurveToRecord(
	alloc memory.Allocator, points []routing.Point, from Samples, prior, answers string,
) arrow.Record {
	escalated := make([]int64, len(points))
	for i, p := range points {
		escalated[i] = p.Escalated
	}
	c := columns{alloc: alloc}
	defer c.release()
	c.float64s("threshold",
		valuesOf(points, func(p *routing.Point) *float64 { return &p.Threshold }))
	c.int64s("escalated", escalated)
	for _, m := range measures {
		c.float64s(m.name, valuesOf(points, m.value))
		c.interval(m, points)
	}
	pairs := predictionPairs(from.Metadata, prior, from.Temperature, from.CostOf(prior))
	if answers == routing.EnsembleAnswers {
		pairs[keyAnswers], pairs[keyLightWeight] = answers, formatFloat(from.LightWeight)
	}
	return c.record(KindCurve, pairs)
}

// interval puts the columns of the ends of a measure's interval.
func (c *columns) interval(m measure, points []routing.Point) {
	for end, suffix := range [2]string{"_low", "_high"} {
		c.float64s(m.name+suffix, valuesOf(points,
			func(p *routing.Point) *float64 { return &m.interval(p)[end] }))
	}
}

func valuesOf(points []routing.Point, value func(*routing.Point) *float64) []float64 {
	out := make([]float64, len(points))
	for i := range points {
		out[i] = *value(&points[i])
	}
	return out
}

// CurveFromRecord copies the points out of a record batch.
func CurveFromRecord(rec arrow.Record) ([]routing.Point, error) {
	x := extract(rec, KindCurve)
	defer x.release()
	points := make([]routing.Point, x.rows())
	fill := func(name string, at func(*routing.Point) *float64) {
		for i, v := range x.float64s(name) {
			*at(&points[i]) = v
		}
	}
	fill("threshold", func(p *routing.Point) *float64 { return &p.Threshold })
	for i, v := range x.int64s("escalated") {
		points[i].Escalated = v
	}
	for _, m := range measures {
		fill(m.name, m.value)
		fill(m.name+"_low", func(p *routing.Point) *float64 { return &m.interval(p)[0] })
		fill(m.name+"_high", func(p *routing.Point) *float64 { return &m.interval(p)[1] })
	}
	if x.err != nil {
		return nil, x.err
	}
	return points, nil
}
