package callgen

import (
	"fmt"
	"go/ast"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// The two functions of bridge/abi that JSON crosses through.
const (
	decoder = "decode" // decode(&call, text, T{…})
	encoder = "encode" // encode[T](…)
)

// crossing lists the types that cross as JSON, one line for each use of decode and encode, ordered.
func (s *sources) crossing(abi *sourcePackage) (lines []string, err error) {
	for _, f := range abi.files {
		if err := onlyOneFileHasJSON(f); err != nil {
			return nil, fmt.Errorf("%s: %w", s.position(f), err)
		}
		for _, declaration := range f.Decls {
			name := "package abi"
			if function, is := declaration.(*ast.FuncDecl); is {
				name = function.Name.Name
			}
			if name == decoder || name == encoder {
				continue
			}
			uses, err := s.usesIn(declaration)
			if err != nil {
				return nil, err
			}
			for _, use := range uses {
				shape, err := s.shape(scope{abi, f, nil}, use.of)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", s.position(use.of), err)
				}
				lines = append(lines, fmt.Sprintf("%s: %s %s", name, use.what, shape))
			}
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// onlyOneFileHasJSON refuses encoding/json in a file that doesn't declare decode and encode: what
// it read or wrote would not be seen.
func onlyOneFileHasJSON(f *ast.File) error {
	declares := slices.ContainsFunc(f.Decls, func(d ast.Decl) bool {
		function, is := d.(*ast.FuncDecl)
		return is && function.Name.Name == decoder
	})
	for _, spec := range f.Imports {
		if strings.HasSuffix(spec.Path.Value, `json"`) && !declares {
			return fmt.Errorf("the file imports %s; JSON crosses through %s and %s alone",
				spec.Path.Value, decoder, encoder)
		}
	}
	return nil
}

// use is one place where JSON crosses, and the type that it names.
type use struct {
	what string // decode or encode
	of   ast.Expr
}

// usesIn finds the uses in a declaration, and refuses one that doesn't name its type.
func (s *sources) usesIn(declaration ast.Decl) (uses []use, err error) {
	named := map[*ast.Ident]bool{} // decode and encode where their type is known
	ast.Inspect(declaration, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.CallExpr:
			name, is := node.Fun.(*ast.Ident)
			if !is || name.Name != decoder || len(node.Args) != 3 {
				break
			}
			if value, is := node.Args[2].(*ast.CompositeLit); is && value.Type != nil {
				named[name] = true
				uses = append(uses, use{decoder, value.Type})
			}
		case *ast.IndexExpr:
			if name, is := node.X.(*ast.Ident); is && name.Name == encoder {
				named[name] = true
				uses = append(uses, use{encoder, node.Index})
			}
		case *ast.Ident:
			if (node.Name == decoder || node.Name == encoder) && !named[node] && err == nil {
				err = fmt.Errorf("%s: %s is used without naming its type; write "+
					"decode(&call, text, T{…}) and encode[T](…)", s.position(node), node.Name)
			}
		}
		return true
	})
	return uses, err
}

// scope is where a type is written: its package and file, and the types that it stands in,
// outermost first.
type scope struct {
	pkg  *sourcePackage
	file *ast.File
	in   []string
}

var basicTypes = []string{
	"bool", "string", "int", "int8", "int16", "int32", "int64", "uint", "uint8", "uint16", "uint32",
	"uint64", "byte", "float32", "float64",
}

// shape describes what a type is as JSON: keys and types, without names of Go. Two types of one
// shape cross alike.
func (s *sources) shape(at scope, of ast.Expr) (string, error) {
	switch of := of.(type) {
	case *ast.Ident:
		if slices.Contains(basicTypes, of.Name) {
			return of.Name, nil
		}
		return s.namedShape(at, at.pkg, of.Name)
	case *ast.SelectorExpr:
		return s.selectedShape(at, of)
	case *ast.ParenExpr:
		return s.shape(at, of.X)
	case *ast.StarExpr:
		return s.wrapped("*", at, of.X)
	case *ast.ArrayType:
		if of.Len == nil {
			return s.wrapped("[]", at, of.Elt)
		}
		length, is := of.Len.(*ast.BasicLit)
		if !is {
			return "", fmt.Errorf("%s crosses as JSON; write its length as a number", textOf(of))
		}
		return s.wrapped("["+length.Value+"]", at, of.Elt)
	case *ast.MapType:
		key, err := s.shape(at, of.Key)
		if err != nil {
			return "", err
		}
		return s.wrapped("map["+key+"]", at, of.Value)
	case *ast.StructType:
		return s.structShape(at, of)
	}
	return "", fmt.Errorf("%s crosses as JSON; expected structs, maps, slices, texts and numbers",
		textOf(of))
}

func (s *sources) wrapped(prefix string, at scope, of ast.Expr) (string, error) {
	shape, err := s.shape(at, of)
	return prefix + shape, err
}

// selectedShape follows a type of another package; one from outside of the module is known by its
// name.
func (s *sources) selectedShape(at scope, of *ast.SelectorExpr) (string, error) {
	importPath, err := imported(at.file, textOf(of.X))
	if err != nil {
		return "", err
	}
	folder, own := strings.CutPrefix(importPath, module)
	if !own {
		return importPath + "." + of.Sel.Name, nil
	}
	pkg, err := s.open(folder)
	if err != nil {
		return "", err
	}
	return s.namedShape(at, pkg, of.Sel.Name)
}

func (s *sources) namedShape(at scope, pkg *sourcePackage, name string) (string, error) {
	full := pkg.folder + "." + name
	found, is := pkg.types[name]
	switch {
	case !is:
		return "", fmt.Errorf("the type %s crosses as JSON and is not declared in %s",
			name, pkg.folder)
	case found.spec.TypeParams != nil:
		return "", fmt.Errorf("%s crosses as JSON and has type parameters; name a type without "+
			"them", full)
	case pkg.hasMethod(name, "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText"):
		return "", fmt.Errorf("%s crosses as JSON and has its own way to JSON, which the number "+
			"of the calls can't see; give it plain fields", full)
	case slices.Contains(at.in, full):
		return "(" + full + " again)", nil
	}
	return s.shape(scope{pkg, found.file, append(slices.Clip(at.in), full)}, found.spec.Type)
}

func (s *sources) structShape(at scope, of *ast.StructType) (string, error) {
	text := "{"
	for _, field := range of.Fields.List {
		key, options, err := jsonTag(field)
		if err != nil {
			return "", err
		}
		if key == "-" && options == "" {
			continue
		}
		for _, name := range fieldNames(field) {
			if !ast.IsExported(name) && len(field.Names) > 0 {
				continue
			}
			if key != "" {
				name = key
			}
			shape, err := s.shape(at, field.Type)
			if err != nil {
				return "", err
			}
			text += fmt.Sprintf("%s%s %s; ", name, options, shape)
		}
	}
	return text + "}", nil
}

// fieldNames are the names of a field; one that is embedded has none, and its fields are the
// struct's own.
func fieldNames(field *ast.Field) []string {
	if len(field.Names) == 0 {
		return []string{"embedded"}
	}
	names := make([]string, len(field.Names))
	for i, name := range field.Names {
		names[i] = name.Name
	}
	return names
}

// jsonTag reads the key, "" where it is the field's name, and the options, such as ",omitempty".
func jsonTag(field *ast.Field) (key, options string, err error) {
	if field.Tag == nil {
		return "", "", nil
	}
	tag, err := strconv.Unquote(field.Tag.Value)
	if err != nil {
		return "", "", err
	}
	key, options, more := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	if more {
		options = "," + options
	}
	return key, options, nil
}
