// Package diagnostics measures the reliability of scores: the dynamic range of a criterion's scores
// ([DynamicRange]), whether two criteria keep the same units ([Agreement]), whether a few batches
// keep the same units as many ([Stability]), and whether a criterion beats random pruning on given
// images ([AgainstRandom]).
//
// It reads tables and scores, makes no plan, and gives equal results for equal input. Ratios and
// correlations that do not exist are nil, null in JSON, never NaN.
package diagnostics

import (
	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/statistics"
)

// Request has the parameters of [Diagnose].
type Request struct {
	// names; when empty, all criteria whose records the table has
	Criteria []string `json:"criteria"`
	// share of each layer's units to remove, above 0 and below 1
	PruningRatio float64 `json:"pruning_ratio"`
	Seed         uint64  `json:"seed"` // of the criterion random
}

// Report has the ranges of every criterion and the agreement of every two, in the order of the
// criteria.
type Report struct {
	PruningRatio float64           `json:"pruning_ratio"`
	Seed         uint64            `json:"seed"`
	Ranges       []RangeReport     `json:"ranges"`
	Agreements   []AgreementReport `json:"agreements"`
}

// RangeReport has the dynamic range of a criterion's scores, over all units and inside each layer.
type RangeReport struct {
	Criterion string       `json:"criterion"`
	Overall   Range        `json:"overall"`
	Layers    []LayerRange `json:"layers"`
}

// LayerRange is one layer of a RangeReport.
type LayerRange struct {
	Layer string `json:"layer"`
	Range
}

// Diagnose scores a table by several criteria and compares the scores.
//
// Errors: value (pruning_ratio), and those of [criteria.Score].
func Diagnose(table statistics.Table, r Request) (Report, error) {
	if err := checkRatio(r.PruningRatio); err != nil {
		return Report{}, err
	}
	all, err := score(table, r)
	if err != nil {
		return Report{}, err
	}
	report := Report{PruningRatio: r.PruningRatio, Seed: r.Seed, Agreements: []AgreementReport{}}
	views := make([]view, len(all))
	for i, s := range all {
		ranges, err := rangesOf(s)
		if err != nil {
			return Report{}, err
		}
		report.Ranges = append(report.Ranges, ranges)
		if views[i], err = newView(s, r.PruningRatio); err != nil {
			return Report{}, err
		}
		for _, earlier := range views[:i] {
			report.Agreements = append(report.Agreements, compare(earlier, views[i]))
		}
	}
	return report, nil
}

// score scores a table by the criteria of a request.
func score(table statistics.Table, r Request) ([]criteria.Scores, error) {
	names := r.Criteria
	if len(names) == 0 {
		names = criteria.Names()
	}
	var all []criteria.Scores
	for _, name := range names {
		s, err := criteria.Score(name, r.Seed, table)
		if err != nil && len(r.Criteria) == 0 && fault.CodeOf(err) == fault.Layer {
			continue // not recorded, and not asked for by name
		}
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func rangesOf(s criteria.Scores) (RangeReport, error) {
	overall, err := DynamicRange(s.Score)
	if err != nil {
		return RangeReport{}, err
	}
	report := RangeReport{Criterion: s.Criterion, Overall: overall}
	offsets := statistics.Offsets(s.Layers)
	for i, l := range s.Layers {
		inside, err := DynamicRange(s.Score[offsets[i]:offsets[i+1]])
		if err != nil {
			return RangeReport{}, err
		}
		report.Layers = append(report.Layers, LayerRange{l.Name, inside})
	}
	return report, nil
}

// checkRatio refuses a share that removes nothing or everything.
func checkRatio(pruningRatio float64) error {
	if !(pruningRatio > 0 && pruningRatio < 1) {
		return fault.New(fault.Value,
			"pruning_ratio is %v; it is the share of units to remove, above 0 and below 1",
			pruningRatio)
	}
	return nil
}
