package planning

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// CostsKey is the metadata, of statistics, scores and plans, that holds a model's costs: JSON
//
//	{"sizes": {"embed": 192, "blocks.0.mlp": 768, …},
//	 "products": [{"kind": "linear", "name": "blocks.0.mlp.fc1", "rows": 197,
//	               "inputs": [[1, "embed"]], "outputs": [[1, "blocks.0.mlp"]],
//	               "bias": true, "times": ["blocks.0.mlp.branch"]}, …]}
//
// Sizes are the dense counts of units, in one part, of every layer that is named, whether it can be
// pruned or not. A width (inputs, outputs, heads) is a sum of terms: a number times the kept counts
// of the layers named after it. The kept counts of the branches in times, 0 or 1, multiply a whole
// product. See [kinds] for the cost of each kind.
const CostsKey = "agflow.costs"

// kind describes a kind of product: its operands and its costs. Every kind has outputs.
type kind struct {
	inputs, heads, bias bool // whether it has inputs and heads, and may have a bias
	shape               func(rows, in, out, heads int64) string
	macs                func(rows, in, out int64) int64
	params              func(in, out, bias int64) int64
}

var kinds = map[string]kind{
	"linear": {
		inputs: true, bias: true,
		shape: func(rows, in, out, _ int64) string {
			return fmt.Sprintf("linear %dx%dx%d", rows, in, out)
		},
		macs: func(rows, in, out int64) int64 { return multiply(rows, multiply(in, out)) },
		params: func(in, out, bias int64) int64 {
			return add(multiply(in, out), multiply(bias, out))
		},
	},
	"attention": { // both matmuls of all heads: in channels of queries and keys, out of values
		inputs: true, heads: true,
		shape: func(rows, in, out, heads int64) string {
			return fmt.Sprintf("attention %dx%dx%dx%d", rows, in, out, heads)
		},
		macs: func(rows, in, out int64) int64 {
			return multiply(multiply(rows, rows), add(in, out))
		},
		params: func(_, _, _ int64) int64 { return 0 },
	},
	"pointwise": {
		shape: func(rows, _, out, _ int64) string {
			return fmt.Sprintf("pointwise %dx%d", rows, out)
		},
		macs:   func(_, _, _ int64) int64 { return 0 },
		params: func(_, _, _ int64) int64 { return 0 },
	},
	"norm": { // scale and shift
		shape:  func(rows, _, out, _ int64) string { return fmt.Sprintf("norm %dx%d", rows, out) },
		macs:   func(_, _, _ int64) int64 { return 0 },
		params: func(_, out, _ int64) int64 { return multiply(2, out) },
	},
	"parameters": { // without a shape, because they take no time
		macs:   func(_, _, _ int64) int64 { return 0 },
		params: func(_, out, _ int64) int64 { return out },
	},
}

// costs computes a model's costs for any combination of kept counts.
type costs struct {
	sizes    []int64        // dense count of each layer
	index    map[string]int // of a layer in sizes
	products []product
}

type product struct {
	kind                   kind
	name                   string
	rows, bias             int64
	inputs, outputs, heads width
	times                  []int // layers
}

// width is a sum of terms.
type width []term

type term struct {
	factor int64
	layers []int
}

func (w width) of(counts []int64) int64 {
	total := int64(0)
	for _, t := range w {
		size := t.factor
		for _, layer := range t.layers {
			size = multiply(size, counts[layer])
		}
		total = add(total, size)
	}
	return total
}

// widths returns a product's inputs, outputs and heads, and how many times it occurs.
func (p product) widths(counts []int64) (in, out, heads, times int64) {
	times = 1
	for _, layer := range p.times {
		times = multiply(times, counts[layer])
	}
	return p.inputs.of(counts), p.outputs.of(counts), p.heads.of(counts), times
}

// counts turns units kept, in the order of layers, into counts of one part; layers that are not
// among them stay dense.
func (c *costs) counts(layers []statistics.Layer, kept []int) []int64 {
	counts := slices.Clone(c.sizes)
	for i, l := range layers {
		counts[c.index[l.Name]] = int64(kept[i] / l.Parts)
	}
	return counts
}

func (c *costs) macs(counts []int64) int64 {
	total := int64(0)
	for _, p := range c.products {
		in, out, _, times := p.widths(counts)
		total = add(total, multiply(times, p.kind.macs(p.rows, in, out)))
	}
	return total
}

func (c *costs) params(counts []int64) int64 {
	total := int64(0)
	for _, p := range c.products {
		in, out, _, times := p.widths(counts)
		total = add(total, multiply(times, p.kind.params(in, out, p.bias)))
	}
	return total
}

// check refuses costs that are not those of the model and its layers. The dense model costs most,
// so nothing that passes overflows when it is pruned.
func (c *costs) check(model statistics.Model, layers []statistics.Layer) error {
	for _, l := range layers {
		at, known := c.index[l.Name]
		if !known || c.sizes[at] != int64(l.Units/l.Parts) {
			return wrongCosts("sizes has no %q of %d, the units of that layer in one part", l.Name,
				l.Units/l.Parts)
		}
	}
	if macs := c.macs(c.sizes); macs != model.MACs || macs > maxCost {
		return wrongCosts("the dense sizes come to %d MACs and model %q has %d", macs, model.Name,
			model.MACs)
	}
	if params := c.params(c.sizes); params != model.Params || params > maxCost {
		return wrongCosts("the dense sizes come to %d parameters and model %q has %d", params,
			model.Name, model.Params)
	}
	return nil
}

func wrongCosts(format string, values ...any) error {
	return fault.New(fault.Value,
		"metadata %s is not the costs of this model: %w; make the statistics again", CostsKey,
		fmt.Errorf(format, values...))
}

// The JSON of costs.
type jsonCosts struct {
	Sizes    map[string]int64 `json:"sizes"`
	Products []jsonProduct    `json:"products"`
}

type jsonProduct struct {
	Kind    string              `json:"kind"`
	Name    string              `json:"name"`
	Rows    int64               `json:"rows"`
	Inputs  [][]json.RawMessage `json:"inputs"`
	Outputs [][]json.RawMessage `json:"outputs"`
	Heads   [][]json.RawMessage `json:"heads"`
	Bias    bool                `json:"bias"`
	Times   []string            `json:"times"`
}

func parseCosts(text string) (*costs, error) {
	var read jsonCosts
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&read); err != nil {
		return nil, wrongCosts("%w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, wrongCosts("there is text behind the JSON")
	}
	c := &costs{index: make(map[string]int, len(read.Sizes))}
	for name, size := range read.Sizes {
		if size < 1 {
			return nil, wrongCosts("the size of %q is %d, expected at least 1", name, size)
		}
		c.index[name] = len(c.sizes)
		c.sizes = append(c.sizes, size)
	}
	for _, described := range read.Products {
		p, err := c.product(described)
		if err != nil {
			return nil, wrongCosts("product %q %w", described.Name, err)
		}
		c.products = append(c.products, p)
	}
	return c, nil
}

// product reads one product; its error texts continue a sentence that begins with the name.
func (c *costs) product(described jsonProduct) (product, error) {
	k, known := kinds[described.Kind]
	p := product{kind: k, name: described.Name, rows: described.Rows}
	switch {
	case !known:
		return p, fmt.Errorf("is of the unknown kind %q", described.Kind)
	case p.rows < 0 || p.rows == 0 && k.shape != nil:
		return p, fmt.Errorf("has %d rows, expected at least 1", p.rows)
	case len(described.Outputs) == 0 || k.inputs != (len(described.Inputs) > 0) ||
		k.heads != (len(described.Heads) > 0) || described.Bias && !k.bias:
		return p, fmt.Errorf(
			"has inputs, outputs, heads or a bias that kind %q has not, or lacks one that it has",
			described.Kind)
	}
	if described.Bias {
		p.bias = 1
	}
	var err error
	if p.inputs, err = c.width(described.Inputs); err != nil {
		return p, err
	}
	if p.outputs, err = c.width(described.Outputs); err != nil {
		return p, err
	}
	if p.heads, err = c.width(described.Heads); err != nil {
		return p, err
	}
	p.times, err = c.layers(described.Times)
	return p, err
}

// width reads a sum of [factor, layer, …].
func (c *costs) width(described [][]json.RawMessage) (width, error) {
	var w width
	for _, parts := range described {
		if len(parts) == 0 {
			return nil, errors.New("has an empty term, expected a number and the names of layers")
		}
		var t term
		if err := json.Unmarshal(parts[0], &t.factor); err != nil || t.factor < 0 {
			return nil, fmt.Errorf("has a term that begins with %s, expected a whole number from 0",
				parts[0])
		}
		names := make([]string, len(parts)-1)
		for i, part := range parts[1:] {
			if err := json.Unmarshal(part, &names[i]); err != nil {
				return nil, fmt.Errorf("has a term with %s, expected the name of a layer", part)
			}
		}
		var err error
		if t.layers, err = c.layers(names); err != nil {
			return nil, err
		}
		w = append(w, t)
	}
	return w, nil
}

func (c *costs) layers(names []string) ([]int, error) {
	var found []int
	for _, name := range names {
		at, known := c.index[name]
		if !known {
			return nil, fmt.Errorf("names layer %q, which sizes lacks", name)
		}
		found = append(found, at)
	}
	return found, nil
}
