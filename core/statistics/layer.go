package statistics

import (
	"fmt"

	"agflow/core/fault"
)

// maxChannels limits the memory that a description of layers, possibly from a file, can request.
const maxChannels = 1 << 26

// Layer describes one layer of prunable units. A unit is UnitWidth neighbouring channels: the width
// of a head for heads, of the residual stream for a branch, one for the rest. UnitMACs (of one
// image) and UnitParams are the costs that the removal of one unit saves when all else is dense.
//
// Group is a label for people, by which they choose layers; layers of one label share the units of
// a budget out among them. What a layer allows is said by its properties: the units form Parts runs
// of equal length, which keep equally many each (the channels inside the heads of one attention, so
// that its matrices stay rectangular); where it Rounds, each part keeps a multiple of round_to; and
// where it MayVanish, all of its units may go, as those of a residual branch. What reads a Residual
// layer is added to a stream of maps, which carries on without it.
type Layer struct {
	Name       string `json:"name"`
	Group      string `json:"group"`
	Units      int    `json:"units"`
	UnitWidth  int    `json:"unit_width"`
	UnitMACs   int64  `json:"unit_macs"`
	UnitParams int64  `json:"unit_params"`
	Parts      int    `json:"parts"`
	Rounds     bool   `json:"rounds"`
	MayVanish  bool   `json:"may_vanish"`
	Residual   bool   `json:"residual"`
}

// Channels returns the number of channels of the layer's activation: Units*UnitWidth.
func (l Layer) Channels() int { return l.Units * l.UnitWidth }

// Units returns the number of units of all layers: the number of entries of a column.
func Units(layers []Layer) int {
	total := 0
	for _, l := range layers {
		total += l.Units
	}
	return total
}

// Offsets returns where each layer begins in a column: layer i has the entries Offsets[i] to
// Offsets[i+1].
func Offsets(layers []Layer) []int {
	offsets := make([]int, len(layers)+1)
	for i, l := range layers {
		offsets[i+1] = offsets[i] + l.Units
	}
	return offsets
}

// UnitName returns the unit of a column's entry for error texts: `unit 5 of layer "blocks.0.mlp"`.
func UnitName(layers []Layer, entry int) string {
	for _, l := range layers {
		if entry < l.Units {
			return fmt.Sprintf("unit %d of layer %q", entry, l.Name)
		}
		entry -= l.Units
	}
	return fmt.Sprintf("entry %d past the last layer", entry)
}

// ValidateLayers refuses an empty list, empty and repeated names, empty groups and impossible sizes
// or parts.
func ValidateLayers(layers []Layer) error {
	if len(layers) == 0 {
		return fault.New(fault.Empty, "no layers were given; describe at least one prunable layer")
	}
	seen := make(map[string]bool, len(layers))
	channels := 0
	for i, l := range layers {
		switch {
		case l.Name == "":
			return fault.New(fault.Layer, "layer %d has no name; give every layer a name", i)
		case seen[l.Name]:
			return fault.New(fault.Layer,
				"layer %q is given twice; give every layer a name of its own", l.Name)
		case l.Group == "":
			return fault.New(fault.Value,
				"layer %q is of no group; give it a label such as \"mlp\" or \"conv\"", l.Name)
		case l.Units < 1 || l.UnitWidth < 1 || l.Units > maxChannels/l.UnitWidth:
			return fault.New(fault.Shape,
				"layer %q has %d units of width %d; both must be at least 1 and their product at "+
					"most %d",
				l.Name, l.Units, l.UnitWidth, maxChannels)
		case l.Parts < 1 || l.Units%l.Parts != 0:
			return fault.New(fault.Shape,
				"layer %q has %d units in %d parts; parts must be at least 1 and divide the units",
				l.Name, l.Units, l.Parts)
		case l.UnitMACs < 0 || l.UnitParams < 0:
			return fault.New(fault.Value,
				"layer %q has %d MACs and %d parameters a unit; neither may be negative", l.Name,
				l.UnitMACs, l.UnitParams)
		}
		seen[l.Name] = true
		channels += l.Channels()
		if channels > maxChannels {
			return fault.New(fault.Shape,
				"the layers up to %q have %d channels together; at most %d are supported", l.Name,
				channels, maxChannels)
		}
	}
	return nil
}
