// Package defaults holds the default value of every option of a step in one file, defaults.json.
// The agflow command reads it here; the Python package ships the same file.
//
// The file maps a step to its options. Options that all steps have alike are in "common". A recipe
// (run, design, a benchmark) lists only what it sets otherwise than the steps that it is made of;
// "figures" holds what was measured for such a choice.
package defaults

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"sync"
)

//go:embed defaults.json
var file []byte

var steps = sync.OnceValue(func() map[string]map[string]json.RawMessage {
	var read map[string]map[string]json.RawMessage
	if err := json.Unmarshal(file, &read); err != nil {
		panic(fmt.Sprintf("core/defaults/defaults.json is not a JSON object of objects: %v", err))
	}
	return read
})

// Of returns the default of an option ("batch_size") of a step ("calibrate"). It panics where the
// file has none, or one of another type: that is a mistake in the program, not in its input.
func Of[T any](step, option string) T {
	raw, found := steps()[step][option]
	if !found {
		panic(fmt.Sprintf("core/defaults/defaults.json has no default %s.%s", step, option))
	}
	var value T
	if err := json.Unmarshal(raw, &value); err != nil {
		panic(fmt.Sprintf("core/defaults/defaults.json: %s.%s is %s: %v", step, option, raw, err))
	}
	return value
}
