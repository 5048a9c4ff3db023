package criteria_test

import (
	"fmt"
	"strings"

	"agflow/core/criteria"
)

func Example() {
	scores, err := criteria.Score("agf_relative", 0, toy())
	fmt.Printf("%.1f %v\n", scores.Score, err)
	_, err = criteria.Score("taylors", 0, toy())
	lines := strings.NewReplacer("; ", ";\n", " activation", "\nactivation",
		" did you", "\ndid you")
	fmt.Println(lines.Replace(err.Error()))
	// Output:
	// [0.5 1.0 1.5 0.5 1.5] <nil>
	// agflow:value: there is no criterion "taylors";
	// the criteria are agf, agf_relative, taylor, taylor_weight, fisher,
	// activation, wanda, ria, variance, variance_weighted, magnitude, magnitude_l1, random:
	// did you mean taylor?
}
