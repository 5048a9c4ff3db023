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
// pruned or not. A width (inputs, outputs, heads, groups) is a sum of terms: a number times the
// kept counts of the layers named after it. The kept counts of the branches in times, 0 or 1,
// multiply a whole product. See [kinds] for the cost of each kind.
//
// A convolution also has the numbers kernel (elements of it: 9 for 3x3) and stride, rows are the
// positions of its result, inputs the channels that each group reads, outputs those of all groups;
// groups is 1 where it is missing. A depthwise one has one input and as many groups as outputs.
const CostsKey = "agflow.costs"

// kind describes a kind of product: its operands and its costs. Every kind has outputs.
type kind struct {
	inputs, heads, bias bool // whether it has inputs and heads, and may have a bias
	convolution         bool // whether it has a kernel and a stride, and may have groups
	shape               func(s sizes) string
	macs, params        func(s sizes) int64
}

// sizes are the sizes of a product for some counts of units.
type sizes struct{ rows, in, out, heads, groups, kernel, stride, bias int64 }

var kinds = map[string]kind{
	"linear": {
		inputs: true, bias: true,
		shape:  func(s sizes) string { return fmt.Sprintf("linear %dx%dx%d", s.rows, s.in, s.out) },
		macs:   func(s sizes) int64 { return multiply(s.rows, s.in, s.out) },
		params: func(s sizes) int64 { return add(multiply(s.in, s.out), multiply(s.bias, s.out)) },
	},
	"convolution": {
		inputs: true, bias: true, convolution: true,
		shape: func(s sizes) string {
			measured := s.measured()
			return fmt.Sprintf("convolution %dx%dx%dx%dx%dx%d", s.rows, measured[0], measured[1],
				measured[2], s.kernel, s.stride)
		},
		macs: func(s sizes) int64 { return multiply(s.rows, s.kernel, s.in, s.out) },
		params: func(s sizes) int64 {
			return add(multiply(s.kernel, s.in, s.out), multiply(s.bias, s.out))
		},
	},
	"attention": { // both matmuls of all heads: in channels of queries and keys, out of values
		inputs: true, heads: true,
		shape: func(s sizes) string {
			return fmt.Sprintf("attention %dx%dx%dx%d", s.rows, s.in, s.out, s.heads)
		},
		macs:   func(s sizes) int64 { return multiply(s.rows, s.rows, add(s.in, s.out)) },
		params: free,
	},
	"product": { // of activations; without a shape, because no table measures it
		inputs: true,
		macs:   func(s sizes) int64 { return multiply(s.rows, s.in, s.out) },
		params: free,
	},
	"pointwise": {
		shape:  func(s sizes) string { return fmt.Sprintf("pointwise %dx%d", s.rows, s.out) },
		macs:   free,
		params: free,
	},
	"norm": { // scale and shift
		shape:  func(s sizes) string { return fmt.Sprintf("norm %dx%d", s.rows, s.out) },
		macs:   free,
		params: func(s sizes) int64 { return multiply(2, s.out) },
	},
	"parameters": { // without a shape, because they take no time
		macs:   free,
		params: func(s sizes) int64 { return s.out },
	},
}

func free(sizes) int64 { return 0 }

// measured are the sizes that a latency table measures a shape at: inputs, outputs and heads; of a
// convolution inputs and outputs of one group, and the groups, so that each can shrink by itself.
func (s sizes) measured() [3]int64 {
	if s.groups == 0 {
		return [3]int64{s.in, s.out, s.heads}
	}
	return [3]int64{s.in, s.out / s.groups, s.groups}
}

// costs computes a model's costs for any combination of kept counts.
type costs struct {
	sizes    []int64        // dense count of each layer
	index    map[string]int // of a layer in sizes
	products []product
}

type product struct {
	kind                           kind
	name                           string
	rows, kernel, stride, bias     int64
	inputs, outputs, heads, groups width
	times                          []int // layers
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

// at returns a product's sizes, and how many times it occurs.
func (p product) at(counts []int64) (s sizes, times int64) {
	times = 1
	for _, layer := range p.times {
		times = multiply(times, counts[layer])
	}
	s = sizes{
		rows: p.rows, kernel: p.kernel, stride: p.stride, bias: p.bias, in: p.inputs.of(counts),
		out: p.outputs.of(counts), heads: p.heads.of(counts), groups: p.groups.of(counts),
	}
	if p.kind.convolution {
		s.groups = max(s.groups, 1)
	}
	return s, times
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
		s, times := p.at(counts)
		total = add(total, multiply(times, p.kind.macs(s)))
	}
	return total
}

func (c *costs) params(counts []int64) int64 {
	total := int64(0)
	for _, p := range c.products {
		s, times := p.at(counts)
		total = add(total, multiply(times, p.kind.params(s)))
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
	Groups  [][]json.RawMessage `json:"groups"`
	Kernel  int64               `json:"kernel"`
	Stride  int64               `json:"stride"`
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
	p := product{
		kind: k, name: described.Name, rows: described.Rows, kernel: described.Kernel,
		stride: described.Stride,
	}
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
	case !k.convolution && (p.kernel != 0 || p.stride != 0 || len(described.Groups) > 0):
		return p, fmt.Errorf("has a kernel, a stride or groups, which kind %q has not",
			described.Kind)
	case k.convolution && (p.kernel < 1 || p.stride < 1):
		return p, fmt.Errorf("has kernel %d and stride %d, expected both from 1", p.kernel,
			p.stride)
	}
	if described.Bias {
		p.bias = 1
	}
	for _, operand := range []struct {
		into *width
		from [][]json.RawMessage
	}{
		{&p.inputs, described.Inputs}, {&p.outputs, described.Outputs},
		{&p.heads, described.Heads}, {&p.groups, described.Groups},
	} {
		var err error
		if *operand.into, err = c.width(operand.from); err != nil {
			return p, err
		}
	}
	var err error
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
