package statistics

import (
	"math"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// rounded returns deviates as elements of a narrow type, and the same numbers in float64.
func rounded[T tensor.Float16 | tensor.BFloat16](
	t *testing.T, seed uint64, rows, channels int, round func(float32) T,
) (narrow, wide tensor.View) {
	t.Helper()
	data := make([]T, rows*channels)
	for i, v := range elements(view(t, seed, rows, channels)) {
		data[i] = round(v)
	}
	narrow, err := tensor.NewView(data, rows, channels)
	if err != nil {
		t.Fatal(err)
	}
	return narrow, asFloat64(t, narrow)
}

// A table of float16 or bfloat16 has the bits of the definition over their exact values; so has one
// of float64.
func TestTableOfEveryDtype(t *testing.T) {
	check := func(name string, y, g, wideY, wideG tensor.View) {
		a, want := newToy(t, 2), newTable(toyModel, toyLayers)
		add(t, a, 0, 3, y, g)
		reference(&want, 0, 3, 1, wideY, wideG)
		if got := a.Table(); !equalSums(got, want) {
			t.Errorf("%s: got\n%+v\nwant\n%+v", name, got, want)
		}
	}
	toBFloat16 := func(v float32) tensor.BFloat16 {
		return tensor.BFloat16(math.Float32bits(v) >> 16)
	}
	// finite numbers only
	toFloat16 := func(v float32) tensor.Float16 {
		return tensor.Float16(math.Float32bits(v)>>16) & 0xbfff
	}
	y, wideY := rounded(t, 1, 9, 12, toBFloat16)
	g, wideG := rounded(t, 2, 9, 12, toBFloat16)
	check("bfloat16", y, g, wideY, wideG)
	check("float64", wideY, wideG, wideY, wideG)
	y16, wideY := rounded(t, 3, 9, 12, toFloat16)
	g16, wideG := rounded(t, 4, 9, 12, toFloat16)
	check("float16", y16, g16, wideY, wideG)
}

func equalSums(a, b Table) bool {
	for k, column := range a.activationSums() {
		for i, v := range *column.values {
			if v != (*b.activationSums()[k].values)[i] {
				return false
			}
		}
	}
	return true
}

// The error text has the position in every dtype, and differs for finite float64 elements whose
// sums overflow.
func TestNonFiniteTextsOfEveryDtype(t *testing.T) {
	y16, _ := tensor.NewView([]tensor.Float16{0, 0, 0, 0x7c00, 0, 0, 0}, 1, 7)
	b16, _ := tensor.NewView([]tensor.BFloat16{0, 0, 0, 0, 0, 0xff80, 0}, 1, 7)
	huge := float64s(t, 1, 7, 0, 0, 1e200, 0, 0, 0, 0)
	for want, y := range map[string]tensor.View{
		"the first +Inf in y at row 0, channel 3":                y16,
		"the first -Inf in y at row 0, channel 5":                b16,
		"its elements are finite, but the sums with them exceed": huge,
		"1 elements of y and 1 of g are not finite, the first NaN in": float64s(t, 1, 7, 0,
			math.NaN(), 0, 0, 0, 0, 0),
	} {
		a := newToy(t, 1)
		err := a.Add(1, 1, y, y)
		requireCode(t, err, fault.Nonfinite)
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		requireEqual(t, a.Table(), newTable(toyModel, toyLayers))
	}
}
