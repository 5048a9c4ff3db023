package arrowfile

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"agflow/core/fault"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
)

// toMap reads agflow's own pairs; keys of other programs don't begin with "agflow." and are dropped.
func toMap(metadata arrow.Metadata) map[string]string {
	pairs := make(map[string]string, metadata.Len())
	for i, key := range metadata.Keys() {
		if strings.HasPrefix(key, "agflow.") {
			pairs[key] = metadata.Values()[i]
		}
	}
	return pairs
}

// fromMap orders pairs by key, so that equal tables become equal files.
func fromMap(pairs map[string]string) arrow.Metadata {
	keys := slices.Sorted(maps.Keys(pairs))
	values := make([]string, len(keys))
	for i, key := range keys {
		values[i] = pairs[key]
	}
	return arrow.NewMetadata(keys, values)
}

// fileKeys belong to the file or to the model, not to a table's own metadata.
var fileKeys = []string{keyKind, keyFormat, keyProducer, keyChecksum, keyModel, keyModelMACs, keyModelParams}

// tableMetadata is what remains of the pairs of a file for the table: all but the file's keys and those that are
// fields of the table's type.
func tableMetadata(pairs map[string]string, fields ...string) map[string]string {
	rest := maps.Clone(pairs)
	for _, key := range slices.Concat(fileKeys, fields) {
		delete(rest, key)
	}
	return rest
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
		return 0, fault.New(fault.Value, "metadata %s is %q, expected a whole number; make the table with agflow", key, pairs[key])
	}
	return n, nil
}
