package statistics

import (
	"fmt"
	"slices"
	"strings"

	"agflow/core/fault"
)

// The groups of prunable units.
const (
	MLP   = "mlp"   // hidden channels of a block's MLP
	Heads = "heads" // attention heads of a block
	// channels inside the heads of a block: of the values, or pairs of query and key channels
	HeadDim = "head_dim"
	Embed   = "embed" // channels of the residual stream
	Block   = "block" // a whole residual branch, one unit a layer
)

var groups = []string{MLP, Heads, HeadDim, Embed, Block}

// Groups returns the names of all groups of units.
func Groups() []string { return slices.Clone(groups) }

// maxChannels limits the memory that a description of layers, possibly from a file, can request.
const maxChannels = 1 << 26

// Layer describes one layer of prunable units. A unit is UnitWidth neighbouring channels: the width
// of a head for heads, of the residual stream for a block, one for the rest. UnitMACs (of one
// image) and UnitParams are the costs that the removal of one unit saves when all else is dense.
// The units form Parts runs of equal length, which keep equally many each: the heads of a head_dim
// layer, so that its matrices stay rectangular; 1 for every other layer.
type Layer struct {
	Name       string `json:"name"`
	Group      string `json:"group"`
	Units      int    `json:"units"`
	UnitWidth  int    `json:"unit_width"`
	UnitMACs   int64  `json:"unit_macs"`
	UnitParams int64  `json:"unit_params"`
	Parts      int    `json:"parts"`
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

// ValidateLayers refuses an empty list, empty and repeated names, unknown groups and impossible
// sizes or parts.
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
		case !slices.Contains(groups, l.Group):
			return fault.New(fault.Value, "layer %q is of group %q; the groups are %s", l.Name,
				l.Group, strings.Join(groups, ", "))
		case l.Units < 1 || l.UnitWidth < 1 || l.Units > maxChannels/l.UnitWidth:
			return fault.New(fault.Shape,
				"layer %q has %d units of width %d; both must be at least 1 and their product at "+
					"most %d",
				l.Name, l.Units, l.UnitWidth, maxChannels)
		case l.Parts < 1 || l.Units%l.Parts != 0:
			return fault.New(fault.Shape,
				"layer %q has %d units in %d parts; parts must be at least 1 and divide the units",
				l.Name, l.Units, l.Parts)
		case l.Parts > 1 && l.Group != HeadDim:
			return fault.New(fault.Value,
				"layer %q of group %q has %d parts; only layers of group %q have more than 1",
				l.Name, l.Group, l.Parts, HeadDim)
		case l.Group == Block && l.Units != 1:
			return fault.New(fault.Shape, "layer %q of group %q has %d units; a branch is 1",
				l.Name, l.Group, l.Units)
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
