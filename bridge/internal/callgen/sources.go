package callgen

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// sources parses packages of the module, each once.
type sources struct {
	root  fs.FS
	set   *token.FileSet
	known map[string]*sourcePackage // by folder
}

// sourcePackage is one package: its files, and its types with the file that declares each.
type sourcePackage struct {
	folder string
	files  []*ast.File
	types  map[string]declaredType
}

type declaredType struct {
	spec *ast.TypeSpec
	file *ast.File
}

func newSources(root fs.FS) *sources {
	return &sources{root: root, set: token.NewFileSet(), known: map[string]*sourcePackage{}}
}

// open parses a folder, without its tests.
func (s *sources) open(folder string) (*sourcePackage, error) {
	if p, is := s.known[folder]; is {
		return p, nil
	}
	names, err := fs.Glob(s.root, path.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	p := &sourcePackage{folder: folder, types: map[string]declaredType{}}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || name == numberFile {
			continue
		}
		content, err := fs.ReadFile(s.root, name)
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(s.set, name, content, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, f)
		p.collectTypes(f)
	}
	if len(p.files) == 0 {
		return nil, fmt.Errorf("%s holds no Go files", folder)
	}
	s.known[folder] = p
	return p, nil
}

func (p *sourcePackage) collectTypes(f *ast.File) {
	for _, declaration := range f.Decls {
		group, is := declaration.(*ast.GenDecl)
		if !is || group.Tok != token.TYPE {
			continue
		}
		for _, spec := range group.Specs {
			named := spec.(*ast.TypeSpec)
			p.types[named.Name.Name] = declaredType{named, f}
		}
	}
}

// hasMethod says whether a type, or a pointer to it, has one of the methods.
func (p *sourcePackage) hasMethod(typeName string, methods ...string) bool {
	for _, f := range p.files {
		for _, declaration := range f.Decls {
			function, is := declaration.(*ast.FuncDecl)
			if !is || function.Recv == nil {
				continue
			}
			receiver := strings.TrimPrefix(textOf(function.Recv.List[0].Type), "*")
			for _, method := range methods {
				if receiver == typeName && function.Name.Name == method {
					return true
				}
			}
		}
	}
	return false
}

// imported returns the import path that a name stands for in a file.
func imported(f *ast.File, name string) (importPath string, err error) {
	for _, spec := range f.Imports {
		importPath, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return "", err
		}
		if spec.Name != nil && spec.Name.Name == name || spec.Name == nil &&
			path.Base(importPath) == name {
			return importPath, nil
		}
	}
	return "", fmt.Errorf("%s is not imported under this name", name)
}

func (s *sources) position(node ast.Node) string {
	at := s.set.Position(node.Pos())
	return fmt.Sprintf("%s:%d", at.Filename, at.Line)
}

// textOf prints a piece of syntax on one line.
func textOf(node ast.Node) string {
	var text strings.Builder
	if err := printer.Fprint(&text, token.NewFileSet(), node); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(text.String()), " ")
}
