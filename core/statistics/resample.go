package statistics

// Resample is a table that is refilled with weighted batches, for bootstrap draws. Its weights,
// which are the same in all batches, are those of the table it was made from.
type Resample struct{ Table }

// NewResample returns a copy of t that shares no memory with it.
func NewResample(t Table) Resample { return Resample{t.clone()} }

// Fill sets the table to the [Merge] of tables that Merge has accepted, with table i counted
// times[i] times.
func (r *Resample) Fill(tables []Table, times []int64) {
	counts, sums := r.activationCounts(), r.activationSums()
	for _, c := range counts {
		clear(*c.values)
	}
	for _, c := range sums {
		clear(*c.values)
	}
	clear(r.MaxAbsYG)
	for i, t := range tables {
		if times[i] == 0 {
			continue
		}
		for k, c := range t.activationCounts() {
			addTimes(*counts[k].values, *c.values, times[i])
		}
		for k, c := range t.activationSums() {
			addTimes(*sums[k].values, *c.values, float64(times[i]))
		}
		for u, v := range t.MaxAbsYG {
			if v > r.MaxAbsYG[u] { // faster than max
				r.MaxAbsYG[u] = v
			}
		}
	}
}

// addTimes adds every value, multiplied by times, to the total.
func addTimes[T int64 | float64](total, values []T, times T) {
	total = total[:len(values)]
	for i, v := range values {
		total[i] += T(times * v) // the product is rounded on every machine
	}
}
