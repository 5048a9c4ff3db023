// Package fuzzing lets fuzz tests fuzz.
package fuzzing

import (
	"flag"
	"testing"
)

// Begin is the first line of every fuzz test. It keeps the fuzzer from minimising what it finds,
// unless that was asked for: the work is quadratic in the size of an input, and for inputs of a
// hundred bytes and more it takes all of the time.
func Begin(f *testing.F) {
	const option = "test.fuzzminimizetime"
	asked := false
	flag.Visit(func(given *flag.Flag) { asked = asked || given.Name == option })
	if asked {
		return
	}
	if err := flag.Set(option, "1x"); err != nil {
		f.Fatal(err)
	}
}
