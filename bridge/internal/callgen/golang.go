package callgen

import (
	"fmt"
	"strings"
)

// number writes the number of the list.
func number(l List) string {
	return header + fmt.Sprintf(`
package abi

// Number identifies the list of calls: a hash of their signatures and of the types that cross as
// JSON. A caller built for another number must not call.
const Number int64 = %d
`, l.Number())
}

const nativePackage = `
// Package native is what gopy binds for the extension module agflow._core._native: the calls of
// package abi, unchanged. Parameters are int64, float64 and string only, results (int64, error) or
// (string, error): gopy leaks or drops the rest.
package native

import "agflow/bridge/abi"
`

// native writes the functions that gopy binds.
func native(l List) string {
	var code strings.Builder
	code.WriteString(header + nativePackage)
	same := func(kind string) string { return kind }
	for _, c := range l.Calls {
		begin := fmt.Sprintf("func %s(", c.Name)
		end := fmt.Sprintf(") (%s, error) {", c.Result)
		body := fmt.Sprintf("return abi.%s(", c.Name)
		code.WriteByte('\n')
		short := begin + strings.Join(c.typed(same), ", ") + end + " " + body +
			strings.Join(c.names(), ", ") + ") }"
		if columns(short) <= maxColumns {
			code.WriteString(short + "\n")
			continue
		}
		code.WriteString(list("", begin, c.typed(same), end))
		code.WriteString(list("\t", body, c.names(), ")") + "}\n")
	}
	return code.String()
}

var cTypes = map[string]string{"int64": "C.int64_t", "float64": "C.double", "string": "*C.char"}

// fromC are the conversions of parameters to Go.
var fromC = map[string]string{
	"int64": "int64(%s)", "float64": "float64(%s)", "string": "C.GoString(%s)",
}

const hostPackage = `
package host

// #include <stdint.h>
import "C"

import "agflow/bridge/abi"
`

// host writes the C functions of the hosting command.
func host(l List) string {
	var code strings.Builder
	code.WriteString(header + hostPackage)
	for _, c := range l.Calls {
		name := "agflow_call_" + c.snakeName()
		parameters := append(c.typed(func(kind string) string { return cTypes[kind] }),
			"number *C.int64_t", "text **C.char")
		arguments := make([]string, len(c.Parameters))
		for i, p := range c.Parameters {
			arguments[i] = fmt.Sprintf(fromC[p.Type], p.Name)
		}
		code.WriteString("\n//export " + name + "\n")
		code.WriteString(list("", "func "+name+"(", parameters, ") C.int32_t {"))
		code.WriteString(list("\t", "result, err := abi."+c.Name+"(", arguments, ")"))
		if c.Result == "int64" {
			code.WriteString("\treturn answer(number, text, result, err)\n}\n")
		} else {
			code.WriteString("\treturn answerText(text, result, err)\n}\n")
		}
	}
	return code.String()
}
