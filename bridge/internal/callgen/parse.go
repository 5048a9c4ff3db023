package callgen

import (
	"cmp"
	"fmt"
	"go/ast"
	"io/fs"
	"slices"
)

// reserved are the names that the generated functions use themselves.
var reserved = []string{"abi", "C", "number", "text", "result", "err"}

// Calls reads the list of calls from the source of bridge/abi.
func Calls(source fs.FS) (List, error) {
	sources := newSources(source)
	abi, err := sources.open(abiFolder)
	if err != nil {
		return List{}, err
	}
	var list List
	for _, f := range abi.files {
		for _, declaration := range f.Decls {
			function, is := declaration.(*ast.FuncDecl)
			if !is || function.Recv != nil || !function.Name.IsExported() {
				continue
			}
			call, err := readCall(function)
			if err != nil {
				return List{}, fmt.Errorf("%s: %w", sources.position(function), err)
			}
			list.Calls = append(list.Calls, call)
		}
	}
	slices.SortFunc(list.Calls, func(a, b Call) int {
		return cmp.Compare(a.snakeName(), b.snakeName())
	})
	if err := checkNames(list.Calls); err != nil {
		return List{}, err
	}
	list.JSON, err = sources.crossing(abi)
	return list, err
}

func checkNames(calls []Call) error {
	if len(calls) == 0 {
		return fmt.Errorf("%s has no exported function, expected the calls", abiFolder)
	}
	for i, c := range calls[1:] {
		if before := calls[i]; before.snakeName() == c.snakeName() {
			return fmt.Errorf("%s and %s are both %s in Python; rename one",
				before.Name, c.Name, c.snakeName())
		}
	}
	return nil
}

// readCall reads a signature and refuses what can't cross.
func readCall(function *ast.FuncDecl) (Call, error) {
	call := Call{Name: function.Name.Name}
	if function.Type.TypeParams != nil {
		return call, fmt.Errorf("%s has type parameters; a call has none", call.Name)
	}
	for _, field := range function.Type.Params.List {
		kind, is := field.Type.(*ast.Ident)
		if !is || !slices.Contains([]string{"int64", "float64", "string"}, kind.Name) {
			return call, fmt.Errorf("%s has a parameter of type %s; a call takes int64, "+
				"float64 and string", call.Name, textOf(field.Type))
		}
		if len(field.Names) == 0 {
			return call, fmt.Errorf("%s has a parameter without a name; name it", call.Name)
		}
		for _, name := range field.Names {
			call.Parameters = append(call.Parameters, Parameter{name.Name, kind.Name})
		}
	}
	for _, p := range call.Parameters {
		if p.Name == "_" || slices.Contains(reserved, p.Name) {
			return call, fmt.Errorf("%s has a parameter %s, a name that the generated code needs; "+
				"rename it", call.Name, p.Name)
		}
	}
	if err := checkArrow(call); err != nil {
		return call, err
	}
	var err error
	if call.Result, err = readResult(function); err != nil {
		return call, err
	}
	return call, checkRecover(function)
}

// checkArrow refuses half an Arrow value.
func checkArrow(call Call) error {
	for i := 0; i < len(call.Parameters); i++ {
		p := call.Parameters[i]
		if _, is := arrowStem(p.Name, "Schema"); is {
			return fmt.Errorf("%s has a parameter %s without an array before it; an Arrow value "+
				"is <name>Array, <name>Schema", call.Name, p.Name)
		}
		stem, is := arrowStem(p.Name, "Array")
		if !is {
			continue
		}
		i++
		var schema Parameter
		if i < len(call.Parameters) {
			schema = call.Parameters[i]
		}
		found, is := arrowStem(schema.Name, "Schema")
		if !is || found != stem || p.Type != "int64" || schema.Type != "int64" {
			return fmt.Errorf("%s has a parameter %s %s without its schema after it; an Arrow "+
				"value is <name>Array, <name>Schema int64", call.Name, p.Name, p.Type)
		}
	}
	return nil
}

func readResult(function *ast.FuncDecl) (string, error) {
	var results []string
	if function.Type.Results != nil {
		for _, field := range function.Type.Results.List {
			for range max(1, len(field.Names)) {
				results = append(results, textOf(field.Type))
			}
		}
	}
	if len(results) != 2 || results[0] != "int64" && results[0] != "string" ||
		results[1] != "error" {
		return "", fmt.Errorf("%s returns %v; a call returns (int64, error) or (string, error)",
			function.Name.Name, results)
	}
	return results[0], nil
}

// checkRecover refuses a call that a panic could leave: one that doesn't recover first of all.
func checkRecover(function *ast.FuncDecl) error {
	const first = "defer fault.Recover(&err)"
	if body := function.Body; body == nil || len(body.List) == 0 || textOf(body.List[0]) != first {
		return fmt.Errorf("%s doesn't begin with `%s`; no panic may leave a call",
			function.Name.Name, first)
	}
	return nil
}
