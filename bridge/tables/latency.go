package tables

import (
	"agflow/core/planning"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// LatencyToRecord has one row a measurement: kind utf8; rows int64; shape utf8; inputs, outputs,
// heads int64; ms float64. Metadata: agflow.model, and agflow.model_ms, the time of the whole dense
// model; a measurement also records batch, device and threads. Times are of one batch.
func LatencyToRecord(alloc memory.Allocator, t planning.LatencyTable) arrow.Record {
	c := columns{alloc: alloc}
	defer c.release()
	c.texts("kind", t.Kind)
	c.int64s("rows", t.Rows)
	c.texts("shape", t.Shape)
	c.int64s("inputs", t.Inputs)
	c.int64s("outputs", t.Outputs)
	c.int64s("heads", t.Heads)
	c.float64s("ms", t.MS)
	pairs := copied(t.Metadata)
	pairs[keyModel] = t.Model
	pairs[keyModelMS] = formatFloat(t.ModelMS)
	return c.record(KindLatency, pairs)
}

// LatencyFromRecord copies the latency table out of a record batch.
func LatencyFromRecord(rec arrow.Record) (planning.LatencyTable, error) {
	x := extract(rec, KindLatency)
	defer x.release()
	t := planning.LatencyTable{
		Model:    x.pairs[keyModel],
		Kind:     x.texts("kind"),
		Rows:     x.int64s("rows"),
		Shape:    x.texts("shape"),
		Inputs:   x.int64s("inputs"),
		Outputs:  x.int64s("outputs"),
		Heads:    x.int64s("heads"),
		MS:       x.float64s("ms"),
		Metadata: tableMetadata(x.pairs, keyModelMS),
	}
	t.ModelMS = x.given(keyModelMS)
	if x.err != nil {
		return planning.LatencyTable{}, x.err
	}
	return t, t.Validate()
}
