// Command asm generates the AVX2 kernels of agflow/core/internal/kernel with avo:
//
//	go run . -out ../kernel_amd64.s -stubs ../stubs_amd64.go -pkg kernel
//
// It is a module of its own, so that avo is not among agflow's requirements. A test of package
// kernel runs it and compares its output with the committed files.
package main

import (
	"flag"
	"log"

	. "github.com/mmcloughlin/avo/build"
)

// dtype is an element type: its name in the functions' names, its pointer in Go, its bytes.
type dtype struct {
	name, pointer string
	size          int
}

var (
	float32s  = dtype{"Float32", "*float32", 4}
	float64s  = dtype{"Float64", "*float64", 8}
	float16s  = dtype{"Float16", "*uint16", 2}
	bfloat16s = dtype{"BFloat16", "*uint16", 2}
)

func main() {
	ConstraintExpr("amd64,!purego")
	for _, d := range []dtype{float32s, float64s, float16s, bfloat16s} {
		absYG(d)
		sums(d)
	}
	absYGInFloat32()
	absYGMaps()
	transpose()
	for _, d := range []dtype{float32s, float64s, {"Uint16", "*uint16", 2}} {
		or(d)
	}
	compare()
	Generate()
	for _, output := range []string{"out", "stubs"} {
		if err := wrapFile(flag.Lookup(output).Value.String()); err != nil {
			log.Fatal(err)
		}
	}
}
