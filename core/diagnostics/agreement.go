package diagnostics

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"

	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/planning"
	"agflow/core/statistics"
)

// Match measures the similarity of two scorings of the same units.
type Match struct {
	Jaccard float64 `json:"jaccard"` // |kept by both| / |kept by either|
	// the approximate Jaccard of two random scorings: kept / (2 units - kept)
	Chance float64 `json:"chance"`
	// correlation of ranks, equal scores sharing their mean rank; nil where all are equal
	Spearman *float64 `json:"spearman"`
}

// AgreementReport compares two scorings. Overall pools the kept units of all layers, each chosen
// inside its layer, and ranks all units together; for criteria that are not comparable across
// layers the latter mostly reflects the layers' scales.
type AgreementReport struct {
	A       string       `json:"a"`
	B       string       `json:"b"`
	Overall Match        `json:"overall"`
	Layers  []LayerMatch `json:"layers"`
}

// LayerMatch is one layer of an AgreementReport.
type LayerMatch struct {
	Layer string `json:"layer"`
	Units int    `json:"units"`
	Kept  int    `json:"kept"`
	Match
}

// Agreement compares the units that two scorings of the same layers keep, and the order in which
// they have all units. Of each layer the best 1 - pruningRatio of the units are kept, rounded down
// but at least one, as [planning.Solve] does with uniform widths.
//
// Errors: value (pruningRatio), layer (different layers), and those of [criteria.Scores.Validate].
func Agreement(a, b criteria.Scores, pruningRatio float64) (AgreementReport, error) {
	if err := checkRatio(pruningRatio); err != nil {
		return AgreementReport{}, err
	}
	if !slices.Equal(a.Layers, b.Layers) {
		return AgreementReport{}, fault.New(fault.Layer,
			"the %s scores are of other layers than the %s scores; "+
				"compare scores of one model and the same layers",
			b.Criterion, a.Criterion)
	}
	viewA, err := newView(a, pruningRatio)
	if err != nil {
		return AgreementReport{}, err
	}
	viewB, err := newView(b, pruningRatio)
	if err != nil {
		return AgreementReport{}, err
	}
	return compare(viewA, viewB), nil
}

// view has what a comparison needs of scores; it is made once for all comparisons.
type view struct {
	criterion string
	layers    []statistics.Layer
	kept      []kept
	ranks     []float64   // among all units
	inside    [][]float64 // ranks inside each layer
}

func newView(s criteria.Scores, pruningRatio float64) (view, error) {
	kept, err := keep(s, pruningRatio)
	if err != nil {
		return view{}, err
	}
	v := view{criterion: s.Criterion, layers: s.Layers, kept: kept, ranks: meanRanks(s.Score)}
	offsets := statistics.Offsets(s.Layers)
	for i := range s.Layers {
		v.inside = append(v.inside, meanRanks(s.Score[offsets[i]:offsets[i+1]]))
	}
	return v, nil
}

// compare compares two views of the same layers.
func compare(a, b view) AgreementReport {
	report := AgreementReport{A: a.criterion, B: b.criterion}
	var pooled overlap
	units := 0
	for i, l := range a.layers {
		common := overlapOf(a.kept[i], b.kept[i])
		pooled = pooled.plus(common)
		units += l.Units
		report.Layers = append(report.Layers, LayerMatch{
			l.Name, l.Units, a.kept[i].units, common.match(l.Units, a.inside[i], b.inside[i]),
		})
	}
	report.Overall = pooled.match(units, a.ranks, b.ranks)
	return report
}

// kept are the units of a layer that are kept, as a set and as a number.
type kept struct {
	set   planning.Bitset
	units int
}

// keep chooses the best units of each layer.
func keep(s criteria.Scores, pruningRatio float64) ([]kept, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	all := make([]kept, len(s.Layers))
	offsets := statistics.Offsets(s.Layers)
	for i, l := range s.Layers {
		units := keptUnits(l.Units, pruningRatio)
		set, err := planning.TopK(s.Score[offsets[i]:offsets[i+1]], units, 1)
		if err != nil {
			return nil, err
		}
		all[i] = kept{set, units}
	}
	return all, nil
}

// keptUnits absorbs the rounding of shares: 1-0.9 is a little below 0.1.
func keptUnits(units int, pruningRatio float64) int {
	return max(int((1-pruningRatio+1e-12)*float64(units)), 1)
}

// overlap counts the units that two choices of equal size have in common.
type overlap struct{ both, either, kept int }

func overlapOf(a, b kept) overlap {
	both, either := planning.Overlap(a.set, b.set)
	return overlap{both, either, a.units}
}

func (o overlap) plus(other overlap) overlap {
	return overlap{o.both + other.both, o.either + other.either, o.kept + other.kept}
}

func (o overlap) jaccard() float64 { return float64(o.both) / float64(o.either) }

func (o overlap) match(units int, ranksA, ranksB []float64) Match {
	return Match{
		o.jaccard(), float64(o.kept) / float64(2*units-o.kept), correlation(ranksA, ranksB),
	}
}

// correlation is nil where one side has no variance.
func correlation(a, b []float64) *float64 {
	r := stat.Correlation(a, b, nil)
	if math.IsNaN(r) {
		return nil
	}
	r = max(-1, min(r, 1)) // rounding
	return &r
}
