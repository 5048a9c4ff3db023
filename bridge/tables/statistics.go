package tables

import (
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// StatisticsToRecord has one row a unit: layer, group utf8; unit, unit_width, parts int32;
// unit_macs, unit_params, rows, samples, batches int64; sum_abs_yg … max_abs_yg float64; weights
// int64; sum_abs_w, sum_w2 float64; reader_weights int64; sum_abs_reader, sum_reader2,
// sum_relative_reader float64; weight_gradients int64; sum_wg float64.
func StatisticsToRecord(alloc memory.Allocator, t statistics.Table) arrow.Record {
	c := columns{alloc: alloc}
	defer c.release()
	c.units(t.Layers)
	c.int64s("rows", t.Rows)
	c.int64s("samples", t.Samples)
	c.int64s("batches", t.Batches)
	c.float64s("sum_abs_yg", t.SumAbsYG)
	c.float64s("sum_yg", t.SumYG)
	c.float64s("sum_yg2", t.SumYG2)
	c.float64s("sum_abs_y", t.SumAbsY)
	c.float64s("sum_y", t.SumY)
	c.float64s("sum_y2", t.SumY2)
	c.float64s("sum_g2", t.SumG2)
	c.float64s("max_abs_yg", t.MaxAbsYG)
	c.int64s("weights", t.Weights)
	c.float64s("sum_abs_w", t.SumAbsW)
	c.float64s("sum_w2", t.SumW2)
	c.int64s("reader_weights", t.ReaderWeights)
	c.float64s("sum_abs_reader", t.SumAbsReader)
	c.float64s("sum_reader2", t.SumReader2)
	c.float64s("sum_relative_reader", t.SumRelativeReader)
	c.int64s("weight_gradients", t.WeightGradients)
	c.float64s("sum_wg", t.SumWG)
	pairs := copied(t.Metadata)
	putModel(pairs, t.Model)
	putChannelGroups(pairs, t.Layers)
	return c.record(KindStatistics, pairs)
}

// StatisticsFromRecord copies the table out of a record batch.
func StatisticsFromRecord(rec arrow.Record) (statistics.Table, error) {
	return statisticsOf(extract(rec, KindStatistics))
}

// lentStatistics is the table of a record batch, over the record's memory.
func lentStatistics(rec arrow.Record) (statistics.Table, error) {
	x := extract(rec, KindStatistics)
	x.lent = true
	return statisticsOf(x)
}

func statisticsOf(x *extractor) (statistics.Table, error) {
	defer x.release()
	t := statistics.Table{
		Model:    x.model(),
		Layers:   x.units(),
		Rows:     x.int64s("rows"),
		Samples:  x.int64s("samples"),
		Batches:  x.int64s("batches"),
		SumAbsYG: x.float64s("sum_abs_yg"),
		SumYG:    x.float64s("sum_yg"),
		SumYG2:   x.float64s("sum_yg2"),
		SumAbsY:  x.float64s("sum_abs_y"),
		SumY:     x.float64s("sum_y"),
		SumY2:    x.float64s("sum_y2"),
		SumG2:    x.float64s("sum_g2"),
		MaxAbsYG: x.float64s("max_abs_yg"),
		Weights:  x.int64s("weights"),
		SumAbsW:  x.float64s("sum_abs_w"),
		SumW2:    x.float64s("sum_w2"),

		ReaderWeights:     x.int64s("reader_weights"),
		SumAbsReader:      x.float64s("sum_abs_reader"),
		SumReader2:        x.float64s("sum_reader2"),
		SumRelativeReader: x.float64s("sum_relative_reader"),
		WeightGradients:   x.int64s("weight_gradients"),
		SumWG:             x.float64s("sum_wg"),

		Metadata: tableMetadata(x.pairs),
	}
	if x.err != nil {
		return statistics.Table{}, x.err
	}
	return t, t.Validate()
}
