package planning

import (
	"strings"
	"testing"

	"agflow/core/fault"
)

func TestDiffByHand(t *testing.T) {
	a, _ := solveOK(t, vit("agf", 1), Request{PruningRatio: 0.5})
	b := a
	b.Keep = append([]bool{}, a.Keep...)
	copy(b.Keep[:4], []bool{true, true, true, false})
	copy(a.Keep[:4], []bool{false, false, true, true})
	a.Layers, b.Layers = append(a.Layers[:0:0], a.Layers...), append(b.Layers[:0:0], b.Layers...)
	b.Layers[0].UnitMACs = 7 // what a unit costs may differ
	d, err := Diff(a, b)
	if err != nil {
		t.Fatal(err)
	}
	heads := Comparison{Units: 4, A: 2, B: 3, Both: 1, Jaccard: 0.25}
	mlp := Comparison{Units: 16, A: 8, B: 8, Both: 8, Jaccard: 1}
	all := Comparison{Units: 20, A: 10, B: 11, Both: 9, Jaccard: 0.75}
	if len(d.Layers) != 2 || d.Layers[0] != (LayerComparison{"blocks.0.attn", "heads", heads}) ||
		d.Layers[1] != (LayerComparison{"blocks.0.mlp", "mlp", mlp}) || d.Comparison != all {
		t.Errorf("%+v", d)
	}
}

// Two plans that drop the same branch agree on it.
func TestDroppedBranchesAgree(t *testing.T) {
	if c := compare([]bool{false}, []bool{false}); c.Jaccard != 1 {
		t.Errorf("%+v", c)
	}
}

func TestPlansOfOtherLayersAreNotCompared(t *testing.T) {
	a, _ := solveOK(t, vit("agf", 1), Request{PruningRatio: 0.5})
	b, _ := solveOK(t, vit("agf", 2), Request{PruningRatio: 0.5})
	other, _ := solveOK(t, vit("agf", 1), Request{PruningRatio: 0.5})
	other.Layers[1].Name = "blocks.7.mlp"
	unsound, _ := solveOK(t, vit("agf", 1), Request{PruningRatio: 0.5})
	clear(unsound.Keep)
	for says, plan := range map[string]Plan{
		"2 layers and the second of 4": b, `of the second "blocks.7.mlp" with 16`: other,
		"keeps no unit": unsound,
	} {
		if _, err := Diff(a, plan); err == nil || !strings.Contains(err.Error(), says) ||
			fault.CodeOf(err) != fault.Shape && plan.Keep[0] {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}
