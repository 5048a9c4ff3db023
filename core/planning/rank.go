package planning

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"sync"

	"agflow/core/criteria"
	"agflow/core/statistics"
)

// target is a layer to prune with its units in the order in which they are kept.
type target struct {
	statistics.Layer
	layer  int       // its index among all layers
	offset int       // of its first unit's score
	scores []float64 // of its units
	units  []int32   // best first: the best of each part, then the second of each part, and so on
	scale  float64   // turns a score into normalised importance: a multiple of the layer's mean
	cost   float64   // what removing a unit saves of the budget's quantity

	// normalised importance of the units, falling, by the scores that set the widths
	importance []float64
}

// rank sorts the units of the selected layers: best score first, equal scores by lower index.
// Widths are the scores of the same units that compare units of different layers, or nil for the
// scores themselves. Layers are distributed over processors, and each is ranked independently.
func rank(s criteria.Scores, widths []float64, selected []bool) []target {
	if widths == nil {
		widths = s.Score
	}
	var targets []target
	offsets := statistics.Offsets(s.Layers)
	for i, l := range s.Layers {
		if selected[i] {
			targets = append(targets, target{
				Layer: l, layer: i, offset: offsets[i], scores: s.Score[offsets[i]:offsets[i+1]],
			})
		}
	}
	var running sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), len(targets))
	for worker := range workers {
		running.Go(func() {
			var sorting sorter
			for i := worker; i < len(targets); i += workers {
				t := &targets[i]
				t.rank(widths[t.offset:t.offset+t.Units], &sorting)
			}
		})
	}
	running.Wait()
	compareWhole(targets, widths)
	return targets
}

func (t *target) rank(widths []float64, sorting *sorter) {
	t.scale = importanceScale(t.scores)
	t.units = sorting.byPart(t.scores, t.Parts)
	order := t.units
	if &widths[0] != &t.scores[0] {
		order = sorting.byPart(widths, t.Parts)
	}
	t.importance = normalisedImportance(widths, order)
}

// normalisedImportance returns a layer's scores as multiples of their mean, in the order given.
// Scores of different layers have no common scale (raw AGF falls with depth, variance grows with
// it), but their distribution inside a layer is comparable: a layer whose importance is
// concentrated in few units loses more of the others.
func normalisedImportance(scores []float64, order []int32) []float64 {
	values, unit := make([]float64, len(scores)), importanceScale(scores)
	for i, u := range order {
		values[i] = scores[u] * unit
	}
	return values
}

// importanceScale returns the factor that turns the scores of a layer into multiples of their mean
// magnitude; 0 for scores whose mean is too small.
func importanceScale(scores []float64) float64 {
	magnitude := 0.0
	for _, s := range scores {
		magnitude += math.Abs(s)
	}
	if unit := float64(len(scores)) / magnitude; !math.IsInf(unit, 0) {
		return unit
	}
	return 0
}

// compareWhole normalises the importance of layers that go or stay as one unit by the mean over all
// of them: the mean of a layer of one unit is the unit itself, which would make all of them equal.
func compareWhole(targets []target, widths []float64) {
	var found []*target
	var scores, shared []float64
	for i, t := range targets {
		if whole(t.Layer) {
			found = append(found, &targets[i])
			scores, shared = append(scores, t.scores[0]), append(shared, widths[t.offset])
		}
	}
	for i, t := range found {
		t.scale = importanceScale(scores)
		t.importance[0] = shared[i] * importanceScale(shared)
	}
}

// sorter sorts scores and reuses its memory.
type sorter struct{ from, to []keyedIndex }

// byPart returns the indices of scores that form equal runs: the best of each run, then the second
// of each, and so on.
func (s *sorter) byPart(scores []float64, parts int) []int32 {
	order := make([]int32, len(scores))
	size := len(scores) / parts
	for part := range parts {
		for place, c := range s.falling(scores[part*size : (part+1)*size]) {
			order[place*parts+part] = int32(part*size + c.index)
		}
	}
	return order
}

// digitBits is the number of key bits that one pass of the radix sort orders by. Lists shorter than
// shortLists are sorted by comparison, which is as fast.
const (
	digitBits  = 11
	shortLists = 256
)

// falling returns the scores from the greatest to the least, equal ones by index. The next call
// overwrites the result.
func (s *sorter) falling(scores []float64) []keyedIndex {
	s.from, s.to = s.from[:0], slices.Grow(s.to[:0], len(scores))[:len(scores)]
	for i, score := range scores {
		s.from = append(s.from, keyedIndex{^keyOf(score), i})
	}
	if len(scores) < shortLists {
		slices.SortFunc(s.from, func(a, b keyedIndex) int {
			if a.key != b.key {
				return cmp.Compare(a.key, b.key)
			}
			return a.index - b.index
		})
		return s.from
	}
	for shift := 0; shift < 64; shift += digitBits {
		s.sortDigit(shift)
	}
	return s.from
}

// sortDigit sorts by one digit of the keys; keys of equal digits stay in their order.
func (s *sorter) sortDigit(shift int) {
	const last = 1<<digitBits - 1
	var ends [last + 1]int
	for _, c := range s.from {
		ends[c.key>>shift&last]++
	}
	if ends[s.from[0].key>>shift&last] == len(s.from) { // all alike
		return
	}
	place := 0
	for digit, count := range ends {
		ends[digit] = place
		place += count
	}
	for _, c := range s.from {
		digit := c.key >> shift & last
		s.to[ends[digit]] = c
		ends[digit]++
	}
	s.from, s.to = s.to, s.from
}
