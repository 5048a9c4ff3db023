package planning

import (
	"encoding/json"
	"fmt"

	"pgregory.net/rapid"

	"agflow/core/criteria"
	"agflow/core/statistics"
)

// block is the widths of one block of a ViT; attn and mlp are 0 where the branch is dropped.
type block struct{ heads, qk, v, hidden, attn, mlp int }

// wholeViT is a Vision Transformer with all groups of units.
type wholeViT struct {
	embed  int
	blocks []block
}

const tokens, patches, pixels, classes = 5, 4, 12, 10

// price is the reference: MACs and parameters of the model, layer by layer.
func (m wholeViT) price() Price {
	d := m.embed
	macs := patches*pixels*d + d*classes
	params := pixels*d + d + tokens*d + 2*d + d*classes + classes
	for _, b := range m.blocks {
		qkv, value := b.heads*(2*b.qk+b.v), b.heads*b.v
		macs += b.attn * (tokens*d*qkv + tokens*tokens*b.heads*(b.qk+b.v) + tokens*value*d)
		params += b.attn * (2*d + d*qkv + qkv + value*d + d)
		macs += b.mlp * 2 * tokens * d * b.hidden
		params += b.mlp * (2*d + 2*d*b.hidden + b.hidden + d)
	}
	return Price{MACs: int64(macs), Params: int64(params)}
}

// cut is the model with units kept, in the order of layers.
func (m wholeViT) cut(kept []int) wholeViT {
	small := wholeViT{embed: kept[0]}
	for i, b := range m.blocks {
		k := kept[1+6*i:]
		small.blocks = append(small.blocks, block{
			heads: k[1], v: k[2] / b.heads, qk: k[3] / b.heads, hidden: k[5], attn: k[0], mlp: k[4],
		})
	}
	return small
}

// layers has embed and, per block: attention branch, heads, values, queries and keys, MLP branch,
// hidden channels.
func (m wholeViT) layers() []statistics.Layer {
	layer := func(name, group string, units, parts int) statistics.Layer {
		return statistics.Layer{
			Name: name, Group: group, Units: units, UnitWidth: 1, Parts: parts,
			Rounds: group != "heads" && group != "block", MayVanish: group == "block",
		}
	}
	layers := []statistics.Layer{layer("embed", "embed", m.embed, 1)}
	for i, b := range m.blocks {
		attn, mlp := fmt.Sprintf("blocks.%d.attn", i), fmt.Sprintf("blocks.%d.mlp", i)
		layers = append(layers,
			layer(attn+".branch", "block", 1, 1),
			layer(attn, "heads", b.heads, 1),
			layer(attn+".v", "head_dim", b.heads*b.v, b.heads),
			layer(attn+".qk", "head_dim", b.heads*b.qk, b.heads),
			layer(mlp+".branch", "block", 1, 1), layer(mlp, "mlp", b.hidden, 1))
	}
	dense := m.price()
	for i, l := range layers {
		kept := denseUnits(layers)
		kept[i] -= l.Parts
		less := m.cut(kept).price()
		layers[i].UnitMACs = (dense.MACs - less.MACs) / int64(l.Parts)
		layers[i].UnitParams = (dense.Params - less.Params) / int64(l.Parts)
	}
	return layers
}

// terms are a width in the JSON of costs.
type terms = [][]any

// describedCosts is the JSON of costs while it is put together.
type describedCosts struct {
	Sizes    map[string]int   `json:"sizes"`
	Products []map[string]any `json:"products"`
}

func (d *describedCosts) put(kind, name string, rows int, more map[string]any) {
	more["kind"], more["name"], more["rows"] = kind, name, rows
	d.Products = append(d.Products, more)
}

// putBlock adds block i.
func (d *describedCosts) putBlock(i int, b block) {
	at := fmt.Sprintf("blocks.%d.", i)
	attn, mlp := at+"attn", at+"mlp"
	d.Sizes[attn+".branch"], d.Sizes[attn] = 1, b.heads
	d.Sizes[attn+".v"], d.Sizes[attn+".qk"] = b.v, b.qk
	d.Sizes[mlp+".branch"], d.Sizes[mlp] = 1, b.hidden
	embed, hidden := terms{{1, "embed"}}, terms{{1, mlp}}
	v, qk := terms{{1, attn, attn + ".v"}}, terms{{1, attn, attn + ".qk"}}
	times := []string{attn + ".branch"}
	d.put("norm", at+"norm1", tokens, map[string]any{"outputs": embed, "times": times})
	d.put("linear", attn+".qkv", tokens, map[string]any{
		"inputs": embed, "outputs": append(terms{{2, attn, attn + ".qk"}}, v...), "bias": true,
		"times": times,
	})
	d.put("attention", attn, tokens, map[string]any{
		"inputs": qk, "outputs": v, "heads": terms{{1, attn}}, "times": times,
	})
	d.put("linear", attn+".proj", tokens, map[string]any{
		"inputs": v, "outputs": embed, "bias": true, "times": times,
	})
	times = []string{mlp + ".branch"}
	d.put("norm", at+"norm2", tokens, map[string]any{"outputs": embed, "times": times})
	d.put("linear", mlp+".fc1", tokens, map[string]any{
		"inputs": embed, "outputs": hidden, "bias": true, "times": times,
	})
	d.put("pointwise", mlp+".act", tokens, map[string]any{"outputs": hidden, "times": times})
	d.put("linear", mlp+".fc2", tokens, map[string]any{
		"inputs": hidden, "outputs": embed, "bias": true, "times": times,
	})
}

// costs is the JSON that an adapter reports for the model.
func (m wholeViT) costs() string {
	d := describedCosts{Sizes: map[string]int{"embed": m.embed}}
	embed := terms{{1, "embed"}}
	d.put("linear", "patch_embed", patches, map[string]any{
		"inputs": terms{{pixels}}, "outputs": embed, "bias": true,
	})
	d.put("parameters", "pos_embed", 0, map[string]any{"outputs": terms{{tokens, "embed"}}})
	for i, b := range m.blocks {
		d.putBlock(i, b)
	}
	d.put("norm", "norm", tokens, map[string]any{"outputs": embed})
	d.put("linear", "head", 1, map[string]any{
		"inputs": embed, "outputs": terms{{classes}}, "bias": true,
	})
	text, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// latencies has every shape on a grid of three sizes an axis: a time for the call and one for the
// work.
func (m wholeViT) latencies() *LatencyTable {
	c, err := parseCosts(m.costs())
	if err != nil {
		panic(err)
	}
	t := &LatencyTable{Model: "vit", ModelMS: 8}
	axis := func(dense int64) []int64 {
		if dense < 3 {
			return []int64{dense}
		}
		return []int64{dense / 3, dense/3 + 1, dense}
	}
	seen := map[string]bool{}
	for _, p := range c.products {
		if p.kind.shape == nil {
			continue
		}
		dense, _ := p.at(c.sizes)
		shape, sizes := p.kind.shape(dense), dense.measured()
		if seen[shape] {
			continue
		}
		seen[shape] = true
		for _, i := range axis(sizes[0]) {
			for _, o := range axis(sizes[1]) {
				for _, h := range axis(sizes[2]) {
					t.Kind, t.Rows = append(t.Kind, kindOf(shape)), append(t.Rows, p.rows)
					t.Shape = append(t.Shape, shape)
					t.Inputs, t.Outputs = append(t.Inputs, i), append(t.Outputs, o)
					t.Heads = append(t.Heads, h)
					t.MS = append(t.MS, 0.01+1e-4*float64((i+1)*o+h))
				}
			}
		}
	}
	return t
}

func kindOf(shape string) (kind string) {
	_, _ = fmt.Sscan(shape, &kind)
	return kind
}

func drawViT(t *rapid.T) wholeViT {
	m := wholeViT{embed: rapid.IntRange(1, 12).Draw(t, "embed")}
	for range rapid.IntRange(1, 3).Draw(t, "blocks") {
		m.blocks = append(m.blocks, block{
			heads: rapid.IntRange(1, 4).Draw(t, "heads"), qk: rapid.IntRange(1, 6).Draw(t, "qk"),
			v:      rapid.IntRange(1, 6).Draw(t, "v"),
			hidden: rapid.IntRange(1, 16).Draw(t, "hidden"), attn: 1, mlp: 1})
	}
	return m
}

// scores have few distinct values, so that equal scores are common.
func (m wholeViT) scores(t *rapid.T) criteria.Scores {
	price := m.price()
	s := criteria.Scores{
		Criterion: "agf", Layers: m.layers(), Metadata: map[string]string{CostsKey: m.costs()},
		Model: statistics.Model{Name: "vit", MACs: price.MACs, Params: price.Params},
	}
	for range statistics.Units(s.Layers) {
		s.Score = append(s.Score, float64(rapid.IntRange(0, 9).Draw(t, "score"))/4)
	}
	return s
}

// drawCut draws the number of units that each layer keeps, equally many in each part.
func drawCut(t *rapid.T, layers []statistics.Layer) []int {
	kept := make([]int, len(layers))
	for i, l := range layers {
		least := 1
		if l.MayVanish {
			least = 0
		}
		kept[i] = l.Parts * rapid.IntRange(least, l.Units/l.Parts).Draw(t, "kept")
	}
	return kept
}
