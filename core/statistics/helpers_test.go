package statistics

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

var (
	toyModel  = Model{Name: "toy", MACs: 1000, Params: 100}
	toyLayers = []Layer{
		{
			Name: "blocks.0.attn", Group: "heads", Units: 3, UnitWidth: 4, Parts: 1, UnitMACs: 50,
			UnitParams: 5,
		},
		{
			Name: "blocks.0.mlp", Group: "mlp", Rounds: true, Units: 7, UnitWidth: 1, Parts: 1,
			UnitMACs:   10,
			UnitParams: 1,
		},
	}
)

func newToy(t *testing.T, workers int) *Accumulator {
	t.Helper()
	a, err := NewAccumulator(toyModel, toyLayers, workers)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// view returns a matrix of deviates over many orders of magnitude.
func view(t *testing.T, seed uint64, rows, channels int) tensor.View {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	data := make([]float32, rows*channels)
	for i := range data {
		data[i] = float32(r.NormFloat64() * math.Exp(3*r.NormFloat64()))
	}
	return viewOf(t, data, rows, channels)
}

// elements returns the float32 of a view made by view or viewOf, for a test to change.
func elements(v tensor.View) []float32 {
	data, _ := tensor.Elements[float32](v)
	return data
}

func viewOf(t *testing.T, data []float32, rows, channels int) tensor.View {
	t.Helper()
	v, err := tensor.NewView(data, rows, channels)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// rowsOf returns rows lo to hi.
func rowsOf(t *testing.T, v tensor.View, lo, hi int) tensor.View {
	t.Helper()
	return viewOf(t, elements(v)[lo*v.Channels():hi*v.Channels()], hi-lo, v.Channels())
}

func add(t *testing.T, a *Accumulator, layer, samples int, y, g tensor.View) {
	t.Helper()
	if err := a.Add(layer, samples, y, g); err != nil {
		t.Fatal(err)
	}
}

func requireEqual(t *testing.T, got, want Table) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got\n%+v\nwant\n%+v", got, want)
	}
}

func requireCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if err == nil || fault.CodeOf(err) != code {
		t.Fatalf("got %v, want an error of code %s", err, code)
	}
}

// asFloat64 returns a view's elements in float64.
func asFloat64(t *testing.T, v tensor.View) tensor.View {
	t.Helper()
	var data []float64
	for r := range v.Rows() {
		data = append(data, v.Row(r, nil)...)
	}
	return float64s(t, v.Rows(), v.Channels(), data...)
}

func float64s(t *testing.T, rows, channels int, values ...float64) tensor.View {
	t.Helper()
	v, err := tensor.NewView(values, rows, channels)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
