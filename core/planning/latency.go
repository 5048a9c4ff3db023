package planning

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"agflow/core/fault"
)

// LatencyTable holds measured latencies of products by their shapes, one entry a measurement;
// `agflow bench layers` makes it. The measurements of a shape, which is named after the dense
// sizes, form a full grid over inputs, outputs and heads.
type LatencyTable struct {
	Model    string
	ModelMS  float64 // of the dense model, a batch
	Kind     []string
	Rows     []int64
	Shape    []string // "linear 197x192x768"
	Inputs   []int64  // the sizes measured; 0 where the kind has none. Of a convolution inputs and
	Outputs  []int64  // outputs of one group, and the number of groups as heads.
	Heads    []int64
	MS       []float64         // a batch
	Metadata map[string]string // batch, device, threads
}

// Validate checks what every reader relies on: columns of equal length, times above 0, and full
// grids.
//
// Errors: shape, value, nonfinite.
func (t LatencyTable) Validate() error {
	_, err := t.grids()
	return err
}

// grids makes one grid of the measurements of each shape.
func (t LatencyTable) grids() (map[string]*grid, error) {
	n := len(t.MS)
	for _, length := range []int{
		len(t.Kind), len(t.Rows), len(t.Shape), len(t.Inputs), len(t.Outputs), len(t.Heads),
	} {
		if length != n {
			return nil, fault.New(fault.Shape,
				"the latency table has columns of %d and %d entries; give every column as many",
				length, n)
		}
	}
	if !(t.ModelMS > 0) || math.IsInf(t.ModelMS, 0) {
		return nil, fault.New(fault.Value,
			"the latency table says that the dense model takes %v ms; "+
				"measure it again with `agflow bench layers`",
			t.ModelMS)
	}
	entries := map[string][]int{}
	for i, shape := range t.Shape {
		switch {
		case !strings.HasPrefix(shape, fmt.Sprintf("%s %dx", t.Kind[i], t.Rows[i])):
			return nil, fault.New(fault.Value,
				"row %d of the latency table has shape %q, which is not of kind %q and %d rows; "+
					"measure it again with `agflow bench layers`",
				i, shape, t.Kind[i], t.Rows[i])
		case t.Inputs[i] < 0 || t.Outputs[i] < 0 || t.Heads[i] < 0:
			return nil, fault.New(fault.Value,
				"row %d of the latency table has %d inputs, %d outputs and %d heads; "+
					"none may be negative",
				i, t.Inputs[i], t.Outputs[i], t.Heads[i])
		case !(t.MS[i] > 0) || math.IsInf(t.MS[i], 0):
			return nil, fault.New(fault.Nonfinite,
				"row %d of the latency table, of shape %q, has %v ms, expected a time above 0; "+
					"measure it again with `agflow bench layers`",
				i, shape, t.MS[i])
		}
		entries[shape] = append(entries[shape], i)
	}
	grids := make(map[string]*grid, len(entries))
	for _, shape := range t.Shape {
		if grids[shape] == nil {
			g, err := t.grid(shape, entries[shape])
			if err != nil {
				return nil, err
			}
			grids[shape] = g
		}
	}
	return grids, nil
}

// grid is a full rectangular grid of measurements, the last axis fastest. Times never fall along an
// axis.
type grid struct {
	axes [3][]int64 // inputs, outputs, heads: the sizes measured, ascending
	ms   []float64
}

// grid makes the grid of a shape from its entries.
func (t LatencyTable) grid(shape string, entries []int) (*grid, error) {
	g := &grid{}
	cells := 1
	for axis, column := range [3][]int64{t.Inputs, t.Outputs, t.Heads} {
		for _, i := range entries {
			g.axes[axis] = append(g.axes[axis], column[i])
		}
		slices.Sort(g.axes[axis])
		g.axes[axis] = slices.Compact(g.axes[axis])
		cells = int(multiply(int64(cells), int64(len(g.axes[axis]))))
	}
	incomplete := fault.New(fault.Shape,
		"the latency table has %d measurements of shape %q, "+
			"which are not a full grid of %d inputs by %d outputs by %d heads; "+
			"measure each of them once",
		len(entries), shape, len(g.axes[0]), len(g.axes[1]), len(g.axes[2]))
	if cells != len(entries) {
		return nil, incomplete
	}
	g.ms = make([]float64, cells)
	for _, i := range entries {
		at := 0
		for axis, size := range [3]int64{t.Inputs[i], t.Outputs[i], t.Heads[i]} {
			place, _ := slices.BinarySearch(g.axes[axis], size)
			at = at*len(g.axes[axis]) + place
		}
		if g.ms[at] != 0 {
			return nil, incomplete
		}
		g.ms[at] = t.MS[i]
	}
	g.makeMonotone()
	return g, nil
}

// makeMonotone raises each measurement to the greatest of the smaller sizes. Measurements scatter,
// but more work takes no less time, and the search for what fits a budget relies on that.
func (g *grid) makeMonotone() {
	step := len(g.ms)
	for _, axis := range g.axes {
		step /= len(axis)
		for at := range g.ms {
			if at/step%len(axis) > 0 {
				g.ms[at] = max(g.ms[at], g.ms[at-step])
			}
		}
	}
}

// at interpolates linearly along every axis. Sizes below the smallest that was measured count as
// the smallest, because the time of small matrices does not fall to 0.
func (g *grid) at(sizes [3]int64) float64 {
	return g.along(0, 0, sizes)
}

// along interpolates along an axis and those after it, at an index on those before it.
func (g *grid) along(axis, place int, sizes [3]int64) float64 {
	if axis == len(g.axes) {
		return g.ms[place]
	}
	known, size := g.axes[axis], sizes[axis]
	place *= len(known)
	above, _ := slices.BinarySearch(known, size)
	if above == 0 || above == len(known) {
		return g.along(axis+1, place+min(above, len(known)-1), sizes)
	}
	share := float64(size-known[above-1]) / float64(known[above]-known[above-1])
	below, beyond := g.along(axis+1, place+above-1, sizes), g.along(axis+1, place+above, sizes)
	return min(below+share*(beyond-below), beyond) // rounding must not pass it
}

// bind finds the grid of every product and returns the function that computes the latency of a
// model of given counts: the dense model's latency, scaled by the ratio of the products' total
// latencies.
func (t LatencyTable) bind(c *costs) (func(counts []int64) float64, error) {
	grids, err := t.grids()
	if err != nil {
		return nil, err
	}
	bound := make([]*grid, len(c.products))
	for i, p := range c.products {
		if p.kind.shape == nil {
			continue
		}
		dense, _ := p.at(c.sizes)
		shape := p.kind.shape(dense)
		g, known := grids[shape]
		if !known {
			return nil, fault.New(fault.Value,
				"the latency table has no shape %q, which %q needs; "+
					"measure this model with `agflow bench layers --model`",
				shape, p.name)
		}
		for axis, size := range dense.measured() {
			if last := g.axes[axis][len(g.axes[axis])-1]; last < size {
				return nil, fault.New(fault.Value,
					"the latency table measures shape %q up to %s %d, "+
						"less than the %d of the dense %q; "+
						"measure it again with `agflow bench layers --model`",
					shape, [3]string{"inputs", "outputs", "heads"}[axis], last, size, p.name)
			}
		}
		bound[i] = g
	}
	total := func(counts []int64) float64 {
		total := 0.0
		for i, p := range c.products {
			if bound[i] != nil {
				s, times := p.at(counts)
				total += float64(times) * bound[i].at(s.measured())
			}
		}
		return total
	}
	dense := total(c.sizes)
	if !(dense > 0) || math.IsInf(dense, 0) {
		return nil, fault.New(fault.Value,
			"the measured latencies of the model's products come to %v ms; "+
				"measure this model with `agflow bench layers --model`",
			dense)
	}
	return func(counts []int64) float64 { return t.ModelMS * (total(counts) / dense) }, nil
}
