package statistics

import (
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// asMaps lays the rows of a matrix out as maps of some images.
func asMaps(t *testing.T, v tensor.View, images int) tensor.View {
	t.Helper()
	channels, positions := v.Channels(), v.Rows()/images
	data := make([]float32, v.Rows()*channels)
	for r := range v.Rows() {
		for c, value := range v.Row(r, nil) {
			data[(r/positions*channels+c)*positions+r%positions] = float32(value)
		}
	}
	maps, err := tensor.NewMapView(data, images, channels, positions, channels*positions, positions)
	if err != nil {
		t.Fatal(err)
	}
	return maps
}

// Maps have the bits of the same values in rows, for units of one channel and of several.
func TestMapsHaveTheBitsOfRows(t *testing.T) {
	const rows, images = 20, 4
	inRows, inMaps, mixed := newToy(t, 1), newToy(t, 2), newToy(t, 1)
	for layer, channels := range []int{12, 7} {
		y, g := view(t, 1, rows, channels), view(t, 2, rows, channels)
		yMaps, gMaps := asMaps(t, y, images), asMaps(t, g, images)
		add(t, inRows, layer, images, y, g)
		add(t, inMaps, layer, images, yMaps, gMaps)
		add(t, mixed, layer, images, y, gMaps)

		rowsC, mapsC := make([]float64, channels), make([]float64, channels)
		if err := AddAbsYG(rowsC, y, g, 1); err != nil {
			t.Fatal(err)
		}
		if err := AddAbsYG(mapsC, yMaps, gMaps, 3); err != nil {
			t.Fatal(err)
		}
		for c := range rowsC {
			if rowsC[c] != mapsC[c] {
				t.Errorf("channel %d: %v in rows, %v in maps", c, rowsC[c], mapsC[c])
			}
		}
	}
	requireEqual(t, inMaps.Table(), inRows.Table())
	requireEqual(t, mixed.Table(), inRows.Table())
}

// A non-finite element of maps is named by its image and position.
func TestNonFiniteElementOfMaps(t *testing.T) {
	a := newToy(t, 1)
	bad := asMaps(t, view(t, 1, 6, 7), 2)
	data, _ := tensor.Elements[float32](bad)
	data[(1*7+4)*3+2] *= 1e38
	data[(1*7+4)*3+2] *= 1e38
	before := a.Table()
	err := a.Add(1, 2, bad, asMaps(t, view(t, 2, 6, 7), 2))
	if fault.CodeOf(err) != fault.Nonfinite ||
		!strings.Contains(err.Error(), "Inf in y at position 2 of image 1, channel 4;") {
		t.Errorf("got %v", err)
	}
	requireEqual(t, a.Table(), before)
}
