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
	layer  int       // its place among all layers
	offset int       // of its first unit's score
	scores []float64 // of its units
	units  []int32   // best first: the best of each part, then the second of each part, and so on
	worth  float64   // what turns a score into a multiple of the layer's mean
	cost   float64   // what a unit saves of what the budget limits
	curve  []float64 // what keeping one unit more is worth when layers share a pool: multiples of the layer's mean, as units goes
}

// rank sorts the units of the selected layers: best score first, ties by lower index. Widths are scores of the same units
// that say what a unit is worth beside those of other layers, or nil for the scores themselves. Layers are shared out among
// processors, and each is ranked by itself.
func rank(s criteria.Scores, widths []float64, selected []bool) []target {
	if widths == nil {
		widths = s.Score
	}
	var targets []target
	offsets := statistics.Offsets(s.Layers)
	for i, l := range s.Layers {
		if selected[i] {
			targets = append(targets, target{Layer: l, layer: i, offset: offsets[i], scores: s.Score[offsets[i]:offsets[i+1]]})
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
	compareBlocks(targets, widths)
	return targets
}

func (t *target) rank(widths []float64, sorting *sorter) {
	t.worth = worth(t.scores)
	t.units = sorting.byPart(t.scores, t.Parts)
	order := t.units
	if &widths[0] != &t.scores[0] {
		order = sorting.byPart(widths, t.Parts)
	}
	t.curve = curve(widths, order)
}

// curve returns a layer's scores as multiples of their mean, in an order that falls. Scores of different layers have no
// common scale (raw AGF falls with depth, variance grows with it), their distribution inside a layer has: a layer whose
// worth lies in few units gives up more of them.
func curve(scores []float64, order []int32) []float64 {
	values, unit := make([]float64, len(scores)), worth(scores)
	for i, u := range order {
		values[i] = scores[u] * unit
	}
	return values
}

// worth is what turns the scores of a layer into multiples of their mean; 0 for scores too small to have one.
func worth(scores []float64) float64 {
	magnitude := 0.0
	for _, s := range scores {
		magnitude += math.Abs(s)
	}
	if unit := float64(len(scores)) / magnitude; !math.IsInf(unit, 0) {
		return unit
	}
	return 0
}

// compareBlocks makes the worth of branches multiples of the mean over all of them: the mean of a layer of one unit is the
// unit itself, and would tell no branch from another.
func compareBlocks(targets []target, widths []float64) {
	var blocks []*target
	var scores, shared []float64
	for i, t := range targets {
		if t.Group == statistics.Block {
			blocks = append(blocks, &targets[i])
			scores, shared = append(scores, t.scores[0]), append(shared, widths[t.offset])
		}
	}
	for i, t := range blocks {
		t.worth = worth(scores)
		t.curve[0] = shared[i] * worth(shared)
	}
}

// sorter sorts scores with memory that it keeps.
type sorter struct{ from, to []candidate }

// byPart returns the indices of equal runs of scores: the best of each run, then the second of each, and so on.
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

// digitBits are the bits of a key that one pass of a radix sort looks at. Shorter lists are sorted by comparison, as quickly.
const (
	digitBits  = 11
	shortLists = 256
)

// falling returns the scores from the greatest to the least, equal ones by index. The result is good until the next call.
func (s *sorter) falling(scores []float64) []candidate {
	s.from, s.to = s.from[:0], slices.Grow(s.to[:0], len(scores))[:len(scores)]
	for i, score := range scores {
		s.from = append(s.from, candidate{^keyOf(score), i})
	}
	if len(scores) < shortLists {
		slices.SortFunc(s.from, func(a, b candidate) int {
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

// sortDigit sorts by one digit of the keys and leaves those of equal digits in their order.
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
