package tables

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/strictjson"
)

// maxChannelGroups is the greatest size of the text of the channel groups, in bytes.
const maxChannelGroups = 16 << 20

// channelGroup is what the metadata of the channel groups says of a layer: its label, its
// properties and, for whoever cuts the model, where its units lie. Only the properties are read
// here.
type channelGroup struct {
	Kind       string      `json:"kind"`
	Rounds     bool        `json:"rounds"`
	MayVanish  bool        `json:"may_vanish"`
	Residual   bool        `json:"residual"`
	Members    []member    `json:"members"`
	Attributes []attribute `json:"attributes"`
}

// member is a parameter or buffer that holds units along one of its axes.
type member struct {
	Name string `json:"name"`
	Axis int    `json:"axis"`
	Role string `json:"role"`
	Runs []run  `json:"runs"`
}

// run is the index map [first, width, repeats, period]: unit u fills first + r*period + u*width +
// i, for all r below repeats and all i below width. With unit and count behind them it holds that
// many units alone, and unit is the one that begins at first.
type run []int64

// check refuses runs of another length.
func (m member) check() error {
	for i, r := range m.Runs {
		if len(r) != 4 && len(r) != 6 {
			return fmt.Errorf("%s: runs[%d] has %d values, expected 4, or 6 of some units", m.Name,
				i, len(r))
		}
	}
	return nil
}

// attribute is a number of a module that follows the number of units.
type attribute struct {
	Module  string `json:"module"`
	Name    string `json:"name"`
	Place   *int64 `json:"place"`
	PerUnit *int64 `json:"per_unit"`
}

// channelGroups are the channel groups of a table by layer; none in a table without the metadata.
type channelGroups map[string]channelGroup

func getChannelGroups(pairs map[string]string) (channelGroups, error) {
	text, given := pairs[keyChannelGroups]
	if !given {
		return nil, nil
	}
	if len(text) > maxChannelGroups {
		return nil, fault.New(fault.Value, "metadata %s has %d bytes, expected at most %d; make "+
			"the table with agflow", keyChannelGroups, len(text), maxChannelGroups)
	}
	var groups channelGroups
	err := strictjson.Whole([]byte(text), &groups)
	if err == nil {
		err = groups.check()
	}
	if err != nil {
		return nil, fault.New(fault.Value, "metadata %s is not the JSON of channel groups: %w; "+
			"make the table with agflow", keyChannelGroups, err)
	}
	return groups, nil
}

// check names the first layer, by name, whose members are none.
func (g channelGroups) check() error {
	for _, name := range slices.Sorted(maps.Keys(g)) {
		for _, m := range g[name].Members {
			if err := m.check(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// complete gives a layer its properties: those of its channel group, or, in a table without channel
// groups, those that its label has always stood for.
func (g channelGroups) complete(l *statistics.Layer) error {
	if g == nil {
		l.Rounds, l.MayVanish = propertiesOf(l.Group)
		return nil
	}
	group, known := g[l.Name]
	switch {
	case !known:
		return fault.New(fault.Value, "metadata %s says nothing of layer %q; make the table with "+
			"agflow", keyChannelGroups, l.Name)
	case group.Kind != l.Group:
		return fault.New(fault.Value, "metadata %s says that layer %q is of kind %q, and its "+
			"column group says %q; keep them alike", keyChannelGroups, l.Name, group.Kind, l.Group)
	}
	l.Rounds, l.MayVanish, l.Residual = group.Rounds, group.MayVanish, group.Residual
	return nil
}

// propertiesOf is what labels stood for before tables said it: attention heads were kept one by
// one, and branches removed whole.
func propertiesOf(label string) (rounds, mayVanish bool) {
	return label != "heads" && label != "block", label == "block"
}

// putChannelGroups notes properties that the labels do not stand for, where no metadata does.
func putChannelGroups(pairs map[string]string, layers []statistics.Layer) {
	if _, given := pairs[keyChannelGroups]; given {
		return
	}
	groups, plain := channelGroups{}, true
	for _, l := range layers {
		rounds, mayVanish := propertiesOf(l.Group)
		plain = plain && rounds == l.Rounds && mayVanish == l.MayVanish && !l.Residual
		groups[l.Name] = channelGroup{
			Kind: l.Group, Rounds: l.Rounds, MayVanish: l.MayVanish, Residual: l.Residual,
			Members: []member{}, Attributes: []attribute{},
		}
	}
	if plain {
		return
	}
	text, err := json.Marshal(groups)
	if err != nil {
		panic(err) // maps of plain structs have JSON
	}
	pairs[keyChannelGroups] = string(text)
}
