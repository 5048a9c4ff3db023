package defaults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	if got := Of[int]("calibrate", "batches"); got != 20 {
		t.Errorf("calibrate.batches is %d, want 20", got)
	}
	if got := Of[float64]("route", "tolerance"); got != 0.005 {
		t.Errorf("route.tolerance is %g, want 0.005", got)
	}
	groups := []string{"mlp", "heads", "conv"}
	if got := Of[[]string]("calibrate", "groups"); !slices.Equal(got, groups) {
		t.Errorf("calibrate.groups is %v, want %v", got, groups)
	}
}

func TestOfPanicsWithoutADefault(t *testing.T) {
	for says, read := range map[string]func(){
		"no default calibrate.batch":      func() { Of[int]("calibrate", "batch") },
		"no default calibrated.batches":   func() { Of[int]("calibrated", "batches") },
		"route.tolerance is 0.005":        func() { Of[int]("route", "tolerance") },
		`calibrate.groups is ["mlp", "he`: func() { Of[string]("calibrate", "groups") },
	} {
		if got := panicOf(read); !strings.Contains(got, says) {
			t.Errorf("panicked with %q, want %q", got, says)
		}
	}
}

func panicOf(read func()) (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	read()
	return ""
}

// Of two equal keys a JSON decoder silently takes the second.
func TestNoOptionStandsTwice(t *testing.T) {
	different := len(steps())
	for _, options := range steps() {
		different += len(options)
	}
	if keys := strings.Count(string(file), `":`); keys != different {
		t.Errorf("the file has %d keys, %d of them different", keys, different)
	}
}
