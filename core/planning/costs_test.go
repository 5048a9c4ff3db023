package planning

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/fault"
	"agflow/core/fuzzing"
	"agflow/core/statistics"
)

// Whatever is pruned, of all groups at once, the costs are those of the pruned model.
func TestCostsAreThoseOfThePrunedModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawViT(t)
		s := m.scores(t)
		prices, err := pricingOf(s.Model, s.Layers, s.Metadata, nil)
		if err != nil {
			t.Fatal(err)
		}
		kept := drawCut(t, s.Layers)
		if got, want := prices.of(kept), m.cut(kept).price(); got != want {
			t.Fatalf("kept %v: %+v, want %+v", kept, got, want)
		}
	})
}

// Layers that the scores do not have stay dense.
func TestLayersWithoutScoresStayDense(t *testing.T) {
	m := wholeViT{6, []block{{2, 3, 4, 8, 1, 1}}}
	model := statistics.Model{Name: "vit", MACs: m.price().MACs, Params: m.price().Params}
	prices, err := pricingOf(model, m.layers()[6:], map[string]string{CostsKey: m.costs()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kept := denseUnits(m.layers())
	kept[6] = 5
	if got, want := prices.of([]int{5}), m.cut(kept).price(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The function is long because of its table of cases.
func TestCostsAreRefused(t *testing.T) {
	m := wholeViT{6, []block{{2, 3, 4, 8, 1, 1}}}
	good := statistics.Model{Name: "vit", MACs: m.price().MACs, Params: m.price().Params}
	more := func(product string) string {
		return strings.Replace(m.costs(), `"products":[`, `"products":[`+product+`,`, 1)
	}
	fewer, heavier := good, good
	fewer.MACs--
	heavier.Params++
	for name, c := range map[string]struct {
		costs string
		model statistics.Model
		says  string
	}{
		"no JSON":     {`{"sizes": `, good, "unexpected EOF"},
		"null":        {`null`, good, `no "embed" of 6`},
		"text behind": {m.costs() + "{}", good, "text behind"},
		"unknown field": {
			`{"sizes": {}, "products": [], "more": 1}`, good, `unknown field "more"`,
		},
		"size 0": {
			strings.Replace(m.costs(), `"embed":6`, `"embed":0`, 1), good, `size of "embed" is 0`,
		},
		"other size": {
			strings.Replace(m.costs(), `"embed":6`, `"embed":7`, 1), good, `no "embed" of 6`,
		},
		"a size too large": {
			strings.Replace(m.costs(), `"embed":6`, `"embed":1e30`, 1), good, "cannot unmarshal",
		},
		"unknown kind": {
			more(`{"kind": "conv", "name": "stem"}`), good, `"stem" is of the unknown kind "conv"`,
		},
		"unknown layer": {
			more(`{"kind": "norm", "name": "n", "rows": 1, "outputs": [[1, "width"]]}`), good,
			`"n" names layer "width"`,
		},
		"unknown branch": {
			more(`{"kind": "norm", "name": "n", "rows": 1, "outputs": [[1]], "times": ["b"]}`),
			good, `names layer "b"`,
		},
		"no rows": {
			more(`{"kind": "norm", "name": "n", "outputs": [[1]]}`), good, "0 rows",
		},
		"rows below 0": {
			more(`{"kind": "parameters", "name": "p", "rows": -1, "outputs": [[1]]}`), good,
			"-1 rows",
		},
		"no outputs": {more(`{"kind": "norm", "name": "n", "rows": 1}`), good, "lacks one"},
		"no inputs": {
			more(`{"kind": "linear", "name": "l", "rows": 1, "outputs": [[1]]}`), good, "lacks one",
		},
		"no heads": {
			more(
				`{"kind": "attention", "name": "a", "rows": 1, "inputs": [[1]], "outputs": [[1]]}`),
			good, "lacks one",
		},
		"a bias": {
			more(`{"kind": "norm", "name": "n", "rows": 1, "outputs": [[1]], "bias": true}`), good,
			`kind "norm" has not`,
		},
		"an empty term": {
			more(`{"kind": "norm", "name": "n", "rows": 1, "outputs": [[]]}`), good, "empty term",
		},
		"a negative term": {
			more(`{"kind": "norm", "name": "n", "rows": 1, "outputs": [[-1]]}`), good,
			"begins with -1",
		},
		"half a unit": {
			more(`{"kind": "norm", "name": "n", "rows": 1, "outputs": [[0.5]]}`), good,
			"begins with 0.5",
		},
		"a number's layer": {
			more(`{"kind": "norm", "name": "n", "rows": 1, "outputs": [[1, 2]]}`), good,
			"a term with 2",
		},
		"one product more": {
			more(`{"kind": "linear", "name": "l", "rows": 1, "inputs": [[1]], "outputs": [[1]]}`),
			good, "dense sizes come to",
		},
		"overflow": {
			more(`{"kind": "linear", "name": "l", "rows": 9223372036854775807,
				"inputs": [[9223372036854775807]], "outputs": [[3]]}`),
			good, "9223372036854775807 MACs",
		},
		"other MACs":       {m.costs(), fewer, "dense sizes come to"},
		"other parameters": {m.costs(), heavier, "dense sizes come to"},
		"none recorded":    {m.costs(), statistics.Model{Name: "vit"}, `"vit" has 0`},
	} {
		_, err := pricingOf(c.model, m.layers(), map[string]string{CostsKey: c.costs}, nil)
		if err == nil || fault.CodeOf(err) != fault.Value ||
			!strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), CostsKey) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
}

// Groups that overlap need costs: without them, embed and mlp save more than the model has.
func TestOverlappingGroupsNeedCosts(t *testing.T) {
	m := wholeViT{6, []block{{2, 3, 4, 8, 1, 1}}}
	model := statistics.Model{Name: "vit", MACs: m.price().MACs, Params: m.price().Params}
	_, err := pricingOf(model, m.layers(), nil, nil)
	if fault.CodeOf(err) != fault.Value || !strings.Contains(err.Error(), CostsKey) {
		t.Error(err)
	}
}

// FuzzCosts checks that no text makes the parser panic or allocate much, and that what it accepts
// is priced without overflow: no pruned model costs more than the dense one.
func FuzzCosts(f *testing.F) {
	fuzzing.Begin(f)
	f.Add(wholeViT{6, []block{{2, 3, 4, 8, 1, 1}}}.costs())
	f.Add(`{"sizes": {"a": 9223372036854775807}, "products": [
		{"kind": "linear", "rows": 9223372036854775807,
		 "inputs": [[9223372036854775807, "a", "a"], [1]], "outputs": [[2, "a"]],
		 "times": ["a"]}]}`)
	f.Add(`{"sizes": {"a": 4611686018427387904}, "products": [
		{"kind": "convolution", "rows": 3, "kernel": 9, "stride": 1, "bias": true,
		 "inputs": [[1]], "outputs": [[1, "a"]], "groups": [[1, "a"]]}]}`)
	f.Add(`[[[[`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCosts(text)
		if err != nil {
			if fault.CodeOf(err) != fault.Value {
				t.Fatal(err)
			}
			return
		}
		macs, params := c.macs(c.sizes), c.params(c.sizes)
		cut := make([]int64, len(c.sizes))
		for i, size := range c.sizes {
			cut[i] = size / 2
		}
		if macs < 0 || params < 0 || c.macs(cut) < 0 || c.macs(cut) > macs || c.params(cut) < 0 ||
			c.params(cut) > params {
			t.Fatalf("dense %d MACs and %d parameters, cut %d and %d", macs, params, c.macs(cut),
				c.params(cut))
		}
	})
}

// Convolutions: dense, in groups and depthwise, beside a linear layer on the same units.
func TestConvolutionsByHand(t *testing.T) {
	c, err := parseCosts(`{"sizes": {"a": 8, "b": 6}, "products": [
		{"kind": "convolution", "name": "dense", "rows": 49, "kernel": 9, "stride": 2,
		 "inputs": [[3]], "outputs": [[1, "a"]], "bias": true},
		{"kind": "convolution", "name": "depthwise", "rows": 49, "kernel": 25, "stride": 1,
		 "inputs": [[1]], "outputs": [[1, "a"]], "groups": [[1, "a"]]},
		{"kind": "convolution", "name": "grouped", "rows": 49, "kernel": 1, "stride": 1,
		 "inputs": [[1, "b"]], "outputs": [[4, "b"]], "groups": [[4]]},
		{"kind": "product", "name": "of activations", "rows": 2, "inputs": [[1, "a", "b"]],
		 "outputs": [[3]]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	counts := func(a, b int64) []int64 {
		found := make([]int64, 2)
		found[c.index["a"]], found[c.index["b"]] = a, b
		return found
	}
	for _, test := range [][4]int64{
		{8, 6, 49*(9*3*8+25*8+6*24) + 2*48*3, 9*3*8 + 8 + 25*8 + 6*24},
		{5, 2, 49*(9*3*5+25*5+2*8) + 2*10*3, 9*3*5 + 5 + 25*5 + 2*8},
		{0, 6, 49 * 6 * 24, 6 * 24},
	} {
		at := counts(test[0], test[1])
		if macs, params := c.macs(at), c.params(at); macs != test[2] || params != test[3] {
			t.Errorf("%v: %d MACs, %d parameters", test, macs, params)
		}
	}
	for i, want := range []struct {
		shape    string
		measured [3]int64
	}{
		{"convolution 49x3x8x1x9x2", [3]int64{3, 5, 1}},
		{"convolution 49x1x1x8x25x1", [3]int64{1, 1, 5}},
		{"convolution 49x6x6x4x1x1", [3]int64{2, 2, 4}},
	} {
		dense, _ := c.products[i].at(c.sizes)
		cut, _ := c.products[i].at(counts(5, 2))
		if got := c.products[i].kind.shape(dense); got != want.shape {
			t.Errorf("shape %q, want %q", got, want.shape)
		}
		if got := cut.measured(); got != want.measured {
			t.Errorf("measured at %v, want %v", got, want.measured)
		}
	}
	gone, _ := c.products[1].at(counts(0, 6)) // all units of a branch
	if got := gone.measured(); got != [3]int64{1, 0, 1} {
		t.Errorf("measured at %v", got)
	}
}

func TestConvolutionsAreRefused(t *testing.T) {
	const conv, lin = `"kind": "convolution", `, `"kind": "linear", `
	const in, out = `"inputs": [[1]], `, `"outputs": [[1]], `
	for product, says := range map[string]string{
		conv + in + out + `"stride": 1`:              "kernel 0 and stride 1",
		conv + in + out + `"kernel": 9`:              "kernel 9 and stride 0",
		conv + out + `"kernel": 9, "stride": 1`:      "lacks one",
		conv + in + out + `"kernel": 1e99`:           "number 1e99",
		lin + in + out + `"kernel": 1`:               `which kind "linear" has not`,
		`"kind": "norm", ` + out + `"groups": [[1]]`: `which kind "norm" has not`,
	} {
		_, err := parseCosts(`{"products": [{"name": "p", "rows": 1, ` + product + `}]}`)
		if fault.CodeOf(err) != fault.Value || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", product, err, says)
		}
	}
}

func TestSaturation(t *testing.T) {
	const most = math.MaxInt64
	for _, c := range [][3]int64{
		{0, most, 0}, {most, 0, 0}, {1, most, most}, {2, most, most}, {most, most, most},
		{3, 4, 12},
	} {
		if got := multiply(c[0], c[1]); got != c[2] {
			t.Errorf("%d*%d = %d", c[0], c[1], got)
		}
	}
	if multiply(most, 2, 0) != 0 || multiply(3, most, 2) != most || multiply(2, 3, 4) != 24 {
		t.Error("multiply")
	}
	if add(most, 1) != most || add(1, most) != most || add(2, 3) != 5 || add(0, most) != most {
		t.Error("add")
	}
}
