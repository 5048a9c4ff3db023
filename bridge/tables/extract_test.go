package tables

import (
	"testing"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// TestNumbersOfTheMetadata proves that one rule reads them all: decimal ones, which every language
// reads alike, within what the key may say.
func TestNumbersOfTheMetadata(t *testing.T) {
	records := sampleRecords(t, memory.DefaultAllocator)
	records[KindFrontier] = sampleFrontier()
	for key, kinds := range map[string][]string{
		keyModelMS: {KindLatency}, keyTemperature: {KindPredictions},
		keyLightWeight: {KindPredictions}, keyLightCost: {KindPredictions},
		keyHeavyAccuracy: {KindFrontier}, keyTolerance: {KindFrontier}, keyChosen: {KindFrontier},
		keyImageSize: {KindStatistics, KindScores, KindPlan}, keyModelMACs: {KindPlan},
		keySeed: {KindScores},
	} {
		for _, kind := range kinds {
			for _, text := range []string{"", "0x1p-2", "1_0", "NaN", "-1", "x", "1x", "1e999"} {
				rec := records[kind]
				pairs := ipcfile.Pairs(rec.Schema().Metadata())
				pairs[key] = text
				metadata := arrow.MetadataFrom(pairs)
				forged := array.NewRecord(arrow.NewSchema(rec.Schema().Fields(), &metadata),
					rec.Columns(), rec.NumRows())
				if code := fault.CodeOf(checks[kind](forged)); code == fault.Internal {
					t.Errorf("%s of a %s as %q: %v", key, kind, text, checks[kind](forged))
				}
				forged.Release()
			}
		}
	}
}
