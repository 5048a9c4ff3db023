package tables

import (
	"maps"
	"math"
	"slices"
	"strconv"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/statistics"
)

// fileKeys belong to the file or to the model, not to a table's own metadata.
var fileKeys = []string{
	ipcfile.KeyKind, ipcfile.KeyFormat, ipcfile.KeyProducer, ipcfile.KeyChecksum,
	keyModel, keyModelMACs, keyModelParams,
}

// tableMetadata is what remains of the pairs of a file for the table: all but the file's keys and
// those that are fields of the table's type.
func tableMetadata(pairs map[string]string, fields ...string) map[string]string {
	rest := maps.Clone(pairs)
	for _, key := range slices.Concat(fileKeys, fields) {
		delete(rest, key)
	}
	return rest
}

// copied never returns nil, so that pairs can be added.
func copied(pairs map[string]string) map[string]string {
	out := make(map[string]string, len(pairs))
	maps.Copy(out, pairs)
	return out
}

func putModel(pairs map[string]string, m statistics.Model) {
	pairs[keyModel] = m.Name
	pairs[keyModelMACs] = strconv.FormatInt(m.MACs, 10)
	pairs[keyModelParams] = strconv.FormatInt(m.Params, 10)
}

func getModel(pairs map[string]string) (m statistics.Model, err error) {
	m.Name = pairs[keyModel]
	if m.MACs, err = getInt(pairs, keyModelMACs); err != nil {
		return m, err
	}
	m.Params, err = getInt(pairs, keyModelParams)
	return m, err
}

func getInt(pairs map[string]string, key string) (int64, error) {
	n, err := strconv.ParseInt(pairs[key], 10, 64)
	if err != nil {
		return 0, fault.New(fault.Value,
			"metadata %s is %.40q, expected a whole number; make the table with agflow",
			key, pairs[key])
	}
	return n, nil
}

// formatFloat writes a number so that reading it gives the same bits, whole numbers as such.
func formatFloat(x float64) string {
	if x == math.Trunc(x) && math.Abs(x) < 1<<53 && (x != 0 || !math.Signbit(x)) {
		return strconv.FormatInt(int64(x), 10)
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}
