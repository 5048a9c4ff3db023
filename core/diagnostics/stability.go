package diagnostics

import (
	"math/rand/v2"
	"slices"

	"agflow/core/cancel"
	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

// Limits of a request, so that no request runs for hours.
const (
	maxDraws = 10_000
	maxSize  = 100_000
)

// StabilityRequest has the parameters of [Stability].
type StabilityRequest struct {
	Criterion string `json:"criterion"`
	// share of each layer's units to remove, above 0 and below 1
	PruningRatio float64 `json:"pruning_ratio"`
	Sizes        []int   `json:"sizes"` // batches of a draw
	Draws        int     `json:"draws"` // of each size
	Seed         uint64  `json:"seed"`  // of the draws, and of the criterion random
}

// StabilityReport has the similarity of the units that a few batches keep and those that all
// batches keep, for each size in the order of the request.
type StabilityReport struct {
	Criterion    string          `json:"criterion"`
	PruningRatio float64         `json:"pruning_ratio"`
	Batches      int             `json:"batches"`
	Draws        int             `json:"draws"`
	Seed         uint64          `json:"seed"`
	Sizes        []SizeStability `json:"sizes"`
}

// SizeStability is one size of a StabilityReport. Overall pools the units of all layers.
type SizeStability struct {
	Size    int           `json:"size"`
	Overall Spread        `json:"overall"`
	Layers  []LayerSpread `json:"layers"`
}

// LayerSpread is one layer of a SizeStability.
type LayerSpread struct {
	Layer string `json:"layer"`
	Spread
}

// Spread summarises the Jaccard similarities of the draws; percentiles are interpolated linearly.
type Spread struct {
	Mean float64 `json:"mean"`
	P5   float64 `json:"p5"`
	P95  float64 `json:"p95"`
}

// Stability bootstraps over batches, given as one table each: it draws batches with replacement,
// merges and scores them, and compares the units kept with those that all batches keep, by the
// Jaccard similarity. Draws depend on seed, size and the number of batches alone.
//
// Errors: value (pruning_ratio, sizes, draws, fewer than two batches), and those of
// [statistics.Merge] and [criteria.Score].
func Stability(tables []statistics.Table, r StabilityRequest) (StabilityReport, error) {
	if err := r.check(len(tables)); err != nil {
		return StabilityReport{}, err
	}
	all, err := statistics.Merge(tables...)
	if err != nil {
		return StabilityReport{}, err
	}
	reference, err := r.keep(all)
	if err != nil {
		return StabilityReport{}, err
	}
	report := StabilityReport{
		Criterion: r.Criterion, PruningRatio: r.PruningRatio, Batches: len(tables), Draws: r.Draws,
		Seed: r.Seed,
	}
	for _, size := range r.Sizes {
		stability, err := r.bootstrap(tables, statistics.NewResample(all), reference, size)
		if err != nil {
			return StabilityReport{}, err
		}
		report.Sizes = append(report.Sizes, stability)
	}
	return report, nil
}

// bootstrap compares the draws of one size with the reference.
func (r StabilityRequest) bootstrap(
	tables []statistics.Table, drawn statistics.Resample, reference []kept, size int,
) (SizeStability, error) {
	generator := rand.New(rand.NewPCG(r.Seed, uint64(size)))
	overall := make([]float64, r.Draws)
	layers := make([][]float64, len(reference))
	for draw := range overall {
		cancel.Check()
		drawn.Fill(tables, drawBatches(generator, len(tables), size))
		choice, err := r.keep(drawn.Table)
		if err != nil {
			return SizeStability{}, err
		}
		var pooled overlap
		for i := range choice {
			common := overlapOf(choice[i], reference[i])
			pooled = pooled.plus(common)
			layers[i] = append(layers[i], common.jaccard())
		}
		overall[draw] = pooled.jaccard()
	}
	stability := SizeStability{Size: size, Overall: spreadOf(overall)}
	for i, l := range drawn.Layers {
		stability.Layers = append(stability.Layers, LayerSpread{l.Name, spreadOf(layers[i])})
	}
	return stability, nil
}

// keep returns the units that the criterion keeps, by a table.
func (r StabilityRequest) keep(t statistics.Table) ([]kept, error) {
	s, err := criteria.Score(r.Criterion, r.Seed, t)
	if err != nil {
		return nil, err
	}
	return keep(s, r.PruningRatio)
}

// drawBatches returns how often each batch was drawn, with replacement.
func drawBatches(generator *rand.Rand, batches, size int) []int64 {
	times := make([]int64, batches)
	for range size {
		times[generator.IntN(batches)]++
	}
	return times
}

// spreadOf summarises the values, which it sorts.
func spreadOf(values []float64) Spread {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	slices.Sort(values)
	return Spread{sum / float64(len(values)), percentile(values, 5), percentile(values, 95)}
}

func (r StabilityRequest) check(batches int) error {
	if err := checkRatio(r.PruningRatio); err != nil {
		return err
	}
	switch {
	case batches < 2:
		return fault.New(fault.Value,
			"stability over %d batches was asked for; "+
				"give the tables of at least two batches, one each",
			batches)
	case r.Draws < 1 || r.Draws > maxDraws:
		return fault.New(fault.Value, "%d draws were asked for; take 1 to %d", r.Draws, maxDraws)
	case len(r.Sizes) == 0:
		return fault.New(fault.Value,
			"no sizes were given; say how many batches a draw has, as 10 and 100")
	}
	for _, size := range r.Sizes {
		if size < 1 || size > maxSize {
			return fault.New(fault.Value, "a draw of %d batches was asked for; take 1 to %d", size,
				maxSize)
		}
	}
	return nil
}
