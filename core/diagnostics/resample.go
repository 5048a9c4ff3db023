package diagnostics

import (
	"slices"

	"agflow/core/statistics"
)

// resample is a table that is filled again and again with batches counted several times. Its weights, which are the same
// in all batches, are those of the table it was made from.
type resample struct{ statistics.Table }

func newResample(t statistics.Table) resample {
	r := resample{t}
	for _, column := range counts(&r.Table) {
		*column = slices.Clone(*column)
	}
	for _, column := range sums(&r.Table) {
		*column = slices.Clone(*column)
	}
	r.MaxAbsYG = slices.Clone(r.MaxAbsYG)
	return r
}

// fill makes the table the merge of tables, table i counted times[i] times.
func (r *resample) fill(tables []statistics.Table, times []int64) {
	for _, column := range counts(&r.Table) {
		clear(*column)
	}
	for _, column := range sums(&r.Table) {
		clear(*column)
	}
	clear(r.MaxAbsYG)
	for i, t := range tables {
		if times[i] == 0 {
			continue
		}
		for k, column := range counts(&r.Table) {
			addTimes(*column, *counts(&t)[k], times[i])
		}
		for k, column := range sums(&r.Table) {
			addTimes(*column, *sums(&t)[k], float64(times[i]))
		}
		for u, v := range t.MaxAbsYG {
			if v > r.MaxAbsYG[u] { // quicker than max
				r.MaxAbsYG[u] = v
			}
		}
	}
}

// counts are the counts that grow with every batch.
func counts(t *statistics.Table) []*[]int64 { return []*[]int64{&t.Rows, &t.Samples, &t.Batches} }

// sums are the sums that grow with every batch.
func sums(t *statistics.Table) []*[]float64 {
	return []*[]float64{&t.SumAbsYG, &t.SumYG, &t.SumYG2, &t.SumAbsY, &t.SumY, &t.SumY2, &t.SumG2, &t.SumWG}
}

// addTimes adds every value several times.
func addTimes[T int64 | float64](total, values []T, times T) {
	total = total[:len(values)]
	for i, v := range values {
		total[i] += T(times * v) // the product is rounded on every machine
	}
}
