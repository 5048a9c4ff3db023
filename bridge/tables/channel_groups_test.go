package tables

import (
	"slices"
	"strings"
	"testing"

	"agflow/bridge/internal/samples"
	"agflow/core/fault"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// TestPropertiesOfLayers proves that a table with channel groups says what its layers allow, that
// one without says it by the labels of old, and that both are carried along.
func TestPropertiesOfLayers(t *testing.T) {
	got, err := ScoresFromRecord(scoresWithGroups(sampleGroups))
	want := slices.Clone(samples.Layers)
	want[0].Rounds, want[1].Rounds, want[1].MayVanish = false, true, true
	want[0].Residual = true
	if err != nil || !slices.Equal(got.Layers, want) {
		t.Errorf("%+v, %v", got.Layers, err)
	}
	if got.Metadata[keyChannelGroups] != sampleGroups {
		t.Error("the metadata are not carried along")
	}
	ofPart := strings.Replace(sampleGroups, "[0, 1, 1, 0]", "[0, 1, 1, 0, 4, 4]", 1)
	if _, err := ScoresFromRecord(scoresWithGroups(ofPart)); ofPart == sampleGroups || err != nil {
		t.Error("a run of some units:", err)
	}
	for label, allows := range map[string][2]bool{
		"mlp": {true, false}, "heads": {false, false}, "head_dim": {true, false},
		"embed": {true, false}, "block": {false, true}, "conv": {true, false},
		"stage": {true, false},
	} {
		layer := statistics.Layer{Name: "a", Group: label, Units: 1, UnitWidth: 1, Parts: 1}
		scores := sampleScores()
		scores.Layers, scores.Score = []statistics.Layer{layer}, []float64{1}
		for _, layer.Rounds = range []bool{true, false} {
			for _, layer.MayVanish = range []bool{true, false} {
				layer.Residual = layer.Rounds && !layer.MayVanish && label == "conv"
				scores.Layers[0] = layer
				rec := ScoresToRecord(memory.DefaultAllocator, scores)
				got, err := ScoresFromRecord(rec)
				if err != nil || got.Layers[0] != layer {
					t.Errorf("%+v became %+v, %v", layer, got.Layers, err)
				}
				plain := allows == [2]bool{layer.Rounds, layer.MayVanish} && !layer.Residual
				if _, said := got.Metadata[keyChannelGroups]; said == plain {
					t.Errorf("%+v: metadata %v", layer, got.Metadata)
				}
			}
		}
	}
}

// TestPropertiesOfTensors proves that the layers of a tensor file have those of its channel groups.
func TestPropertiesOfTensors(t *testing.T) {
	var f samples.TensorFile
	samples.Put(&f, samples.Layers[1], "y", 0, 1, make([]float32, 8))
	more := map[string]string{keyChannelGroups: sampleGroups}
	found, err := Tensors(f.Record(KindTensor, samples.Model, more))
	if err != nil || !found[0].Layer.Rounds || !found[0].Layer.MayVanish {
		t.Errorf("%+v, %v", found, err)
	}
	more[keyChannelGroups] = "{}"
	if _, err := Tensors(f.Record(KindTensor, samples.Model, more)); fault.CodeOf(err) !=
		fault.Value {
		t.Error(err)
	}
}

// TestKeptChannels proves that what no plan can remove is carried along, and refused where it is no
// list of that.
func TestKeptChannels(t *testing.T) {
	const sound = `[{"name": "layer4.0.conv2", "channels": 512, "reason": "read by aten.sort"}]`
	for text, says := range map[string]string{
		sound: "", "[]": "", "": "unexpected end", "{}": "expected an array",
		"[1]":             "expected an object",
		`[{"name": "a"}]`: "channels is missing",
		strings.Replace(sound, "512", `"512"`, 1): `channels is "512", expected a whole number`,
		"[" + strings.Repeat(" ", maxKept) + "]":  "expected at most 1048576",
	} {
		scores := sampleScores()
		scores.Metadata[keyKept] = text
		got, err := ScoresFromRecord(ScoresToRecord(memory.DefaultAllocator, scores))
		said := fault.CodeOf(err) == fault.Value && strings.Contains(err.Error(), says)
		switch {
		case says != "" && !said:
			t.Errorf("%.40q: %v, expected %q", text, err, says)
		case says == "" && (err != nil || got.Metadata[keyKept] != text):
			t.Errorf("%q: %v, %v", text, got.Metadata, err)
		}
	}
	kept, err := Kept(map[string]string{keyKept: sound})
	if err != nil || kept[0].String() != "layer4.0.conv2: 512 channels kept, read by aten.sort" {
		t.Error(kept, err)
	}
	if kept, err := Kept(nil); kept != nil || err != nil {
		t.Error(kept, err)
	}
}

// TestForgedChannelGroups proves that what is no description of the table's layers is refused in
// one sentence that says what is wrong.
func TestForgedChannelGroups(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(sampleGroups, old, new, 1) }
	for text, says := range map[string]string{
		"":                                      "unexpected end",
		"[":                                     "unexpected end",
		"null":                                  "is null, expected an object",
		"[]":                                    "expected an object",
		"{}":                                    `says nothing of layer "blocks.0.mlp"`,
		with("blocks.0.attn", "b"):              `says nothing of layer "blocks.0.attn"`,
		with(`"heads"`, `"mlp"`):                `"blocks.0.attn" is of kind "mlp", and its column`,
		with(`"rounds": false`, `"a": 1`):       "blocks.0.mlp.a is not known here",
		with("false", "0"):                      "blocks.0.mlp.rounds is 0, expected true or false",
		with(`"axis": 0`, `"axis": "0"`):        `axis is "0", expected a whole number`,
		with("[0, 1, 1, 0]", "[0, 1, 1]"):       "has 3 values, expected 4",
		with("[0, 1, 1, 0]", "[0, 1, 1, 0, 4]"): "has 5 values, expected 4, or 6",
		with("[0, 1, 1, 0]", "[1e99, 1, 1, 0]"): "is 1e99, expected a whole number",
		with(`"role": "producer",`, ""):         "role is missing",
		with(`"place": 1`, `"place": 1.5`):      "place is 1.5, expected a whole number",
		sampleGroups + "{}":                     "after top-level value",
		strings.Repeat("[", 100_000):            "exceeded max depth",
		`"` + strings.Repeat("x", maxChannelGroups) + `"`: "expected at most 16777216",
	} {
		_, err := ScoresFromRecord(scoresWithGroups(text))
		if fault.CodeOf(err) != fault.Value || !strings.Contains(err.Error(), says) ||
			!strings.Contains(err.Error(), keyChannelGroups) || len(err.Error()) > 400 {
			t.Errorf("%.60q: %v, expected %q", text, err, says)
		}
	}
}
