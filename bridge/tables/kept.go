package tables

import (
	"fmt"

	"agflow/core/fault"
	"agflow/core/strictjson"
)

// maxKept is the greatest size of the text of the kept channels, in bytes.
const maxKept = 1 << 20

// KeptChannels are channels of a model that no plan can remove.
type KeptChannels struct {
	Name     string `json:"name"` // of the module that emits them
	Channels int64  `json:"channels"`
	Reason   string `json:"reason"` // a clause: "read by aten.sort"
}

func (k KeptChannels) String() string {
	return fmt.Sprintf("%s: %d channels kept, %s", k.Name, k.Channels, k.Reason)
}

// Kept reads what the metadata of a table say of the channels that no plan can remove; nothing
// where they do not.
//
// Errors: value.
func Kept(metadata map[string]string) ([]KeptChannels, error) {
	text, given := metadata[keyKept]
	if !given {
		return nil, nil
	}
	if len(text) > maxKept {
		return nil, fault.New(fault.Value, "metadata %s has %d bytes, expected at most %d; make "+
			"the table with agflow", keyKept, len(text), maxKept)
	}
	var kept []KeptChannels
	if err := strictjson.Whole([]byte(text), &kept); err != nil {
		return nil, fault.New(fault.Value, "metadata %s is not the JSON of kept channels: %w; "+
			"make the table with agflow", keyKept, err)
	}
	return kept, nil
}
