package planning

import (
	"slices"

	"agflow/core/criteria"
	"agflow/core/defaults"
	"agflow/core/statistics"
)

// InputOf scores a table of statistics: by the criterion, which ranks the units of each layer, and
// by the criterion of the widths, unless these are [Uniform]. Without a name of widths they go by
// the default criterion, or by the criterion that ranks where the table lacks the weights that read
// each unit.
func InputOf(
	table statistics.Table, criterion, widths string, seed uint64,
) (from Input, err error) {
	if widths == "" {
		widths = defaultWidths(table, criterion)
	}
	from.Scores, err = criteria.Score(criterion, seed, table)
	if err != nil || widths == Uniform {
		return from, err
	}
	shared, err := criteria.Score(widths, seed, table)
	from.Widths = &shared
	return from, err
}

func defaultWidths(table statistics.Table, criterion string) string {
	if slices.Contains(table.ReaderWeights, 0) {
		return criterion
	}
	return defaults.Of[string]("plan", "widths")
}
