package callgen

import (
	"bytes"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

const moduleFolder = "../../.."

// TestGeneratedFilesAreUpToDate proves that the files in the tree are what the generator writes,
// byte by byte.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	source := os.DirFS(moduleFolder)
	files, err := Generate(source)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		found, err := fs.ReadFile(source, name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(found, want) {
			t.Errorf("%s differs from what the generator writes; run `go generate ./%s`",
				name, abiFolder)
		}
	}
}

// TestReadmeListsEveryCall proves that the README of bridge/ lists the calls, and no others.
func TestReadmeListsEveryCall(t *testing.T) {
	source := os.DirFS(moduleFolder)
	content, err := fs.ReadFile(source, "bridge/README.md")
	if err != nil {
		t.Fatal(err)
	}
	calls, err := Calls(source)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(content), "\n### The calls\n")
	section, _, _ := strings.Cut(after, "\n## ")
	listed := map[string]bool{}
	for line := range strings.Lines(section) {
		if rest, is := strings.CutPrefix(line, "| `"); is {
			name, _, _ := strings.Cut(rest, "`")
			listed[name] = true
		}
	}
	for _, c := range calls.Calls {
		if !listed[c.snakeName()] {
			t.Errorf("the README doesn't list the call %s", c.snakeName())
		}
		delete(listed, c.snakeName())
	}
	for name := range listed {
		t.Errorf("the README lists %s, which is no call", name)
	}
}

// sourcesWith copies the Go sources of core and of the calls, with one piece of a file replaced.
func sourcesWith(t *testing.T, name, piece, replacement string) fs.FS {
	t.Helper()
	source, copied := os.DirFS(moduleFolder), fstest.MapFS{}
	for _, folder := range []string{"core", abiFolder} {
		err := fs.WalkDir(source, folder, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(name, ".go") {
				return err
			}
			content, err := fs.ReadFile(source, name)
			copied[name] = &fstest.MapFile{Data: content}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	changed := strings.Replace(string(copied[name].Data), piece, replacement, 1)
	if piece != replacement && changed == string(copied[name].Data) {
		t.Fatalf("%s doesn't hold %q", name, piece)
	}
	copied[name].Data = []byte(changed)
	return copied
}

func numberOf(t *testing.T, source fs.FS) int64 {
	t.Helper()
	calls, err := Calls(source)
	if err != nil {
		t.Fatal(err)
	}
	return calls.Number()
}

// TestNumberFollowsWhatCrosses proves that the number changes with every signature and every type
// that crosses as JSON, wherever it is declared, and with nothing else.
func TestNumberFollowsWhatCrosses(t *testing.T) {
	const (
		request   = abiFolder + "/curves.go"
		topK      = abiFolder + "/kernel.go"
		curve     = "core/routing/curve.go"
		interval  = "core/routing/interval.go"
		threshold = "core/routing/calibrate.go"
		agreement = "core/diagnostics/agreement.go"
	)
	now := numberOf(t, sourcesWith(t, request, "", ""))
	if now < 0 {
		t.Errorf("the number is %d, expected one from 0", now)
	}
	for what, test := range map[string]struct {
		file, piece, replacement string
		changes                  bool
	}{
		"a key of a request": {request, `json:"points"`, `json:"most_points"`, true},
		"a key of a nested struct": {curve, `json:"escalation_interval"`, `json:"interval"`,
			true},
		"a key of an embedded one":   {threshold, `json:"needed_samples"`, `json:"needed"`, true},
		"a key of a list's elements": {agreement, `json:"overall"`, `json:"all"`, true},
		"an option of a key":         {curve, `json:"charged"`, `json:"charged,omitempty"`, true},
		"the type of a field":        {request, "Points  int ", "Points  int32 ", true},
		"the length of an array":     {interval, "[2]float64", "[3]float64", true},
		"a parameter's name":         {request, "Oracle(answers ", "Oracle(asked ", true},
		"the order of parameters":    {topK, "\tk, workers, ", "\tworkers, k, ", true},
		"a comment": {curve, "package routing", "// Text.\npackage routing",
			false},
		"a field's comment":    {request, "\"points\"`", "\"points\"` // at most", false},
		"a field's name in Go": {request, "Points  int ", "Most    int ", false},
		"the body of a call":   {request, "Points: 200}", "Points: 300}", false},
	} {
		changed := numberOf(t, sourcesWith(t, test.file, test.piece, test.replacement)) != now
		if changed != test.changes {
			t.Errorf("%s: the number changed: %v, expected %v", what, changed, test.changes)
		}
	}
}

// refused are sources of the calls, and why each is refused.
var refused = []struct{ source, says string }{
	{takes("a int32"), "a parameter of type int32; a call takes int64, float64 and string"},
	{takes("a []float32"), "a parameter of type []float32"},
	{takes("a ...int64"), "a parameter of type ...int64"},
	{takes("int64"), "a parameter without a name"},
	{takes("text string"), "a parameter text, a name that the generated code needs"},
	{takes("xArray int64"), "a parameter xArray int64 without its schema"},
	{takes("xArray, ySchema int64"), "a parameter xArray int64 without its schema"},
	{takes("xSchema int64"), "a parameter xSchema without an array"},
	{function("F", "[T any]()"+results, ""), "has type parameters"},
	{function("F", "() (n float64, err error)", ""),
		"returns [float64 error]; a call returns (int64, error) or (string, error)"},
	{function("F", "() (n int64)", ""), "returns [int64]"},
	{function("F", "()", ""), "returns []"},
	{"func F() (int64, error) {}", "doesn't begin with `defer fault.Recover(&err)`"},
	{"func f() {}", "no exported function"},
	{"func F( {}", "expected"},
	{does(`encode(1, nil)`), "encode is used without naming its type"},
	{does(`decode(&c, "", asked)`), "decode is used without naming its type"},
	{does(`use(decode)`), "decode is used without naming its type"},
	{does(``) + "var d = decode\n", "decode is used without naming its type"},
	{does(`encode[any](1, nil)`), "the type any crosses as JSON and is not declared"},
	{does(`encode[func()](1, nil)`), "func() crosses as JSON; expected structs"},
	{does(`encode[[n]int](1, nil)`), "write its length as a number"},
	{does(`encode[own](1, nil)`) + methods, "own crosses as JSON and has its own way to JSON"},
	{does(`encode[box](1, nil)`) + generic, "box crosses as JSON and has type parameters"},
	{does(`encode[missing.T](1, nil)`), "missing is not imported"},
	{`import "encoding/json"` + "\n" + does(""),
		`imports "encoding/json"; JSON crosses through decode and encode alone`},
	{does("") + function("Abc", "()"+results, "") + function("ABC", "()"+results, ""),
		"are both abc in Python"},
}

const (
	results = " (n int64, err error)"
	methods = "type own struct{}\n\nfunc (o *own) MarshalJSON() ([]byte, error) { return nil, nil }"
	generic = "type box[T any] struct{ value T }\n"
)

// function is the source of an exported function that recovers, with one more line.
func function(name, signature, line string) string {
	return "func " + name + signature + " {\n\tdefer fault.Recover(&err)\n\t" + line + "\n}\n\n"
}

func takes(parameters string) string { return function("F", "("+parameters+")"+results, "") }

func does(line string) string { return function("F", "()"+results, line) }

// TestRefusals proves that what the generator can't carry over is refused with the reason.
func TestRefusals(t *testing.T) {
	for _, test := range refused {
		content := []byte("package abi\n\n" + test.source)
		_, err := Calls(fstest.MapFS{abiFolder + "/abi.go": {Data: content}})
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, expected %q", test.source, err, test.says)
		}
	}
}

// TestNamesAndLines proves the names of the other languages, and that long lines are broken as
// gofmt and ruff do it.
func TestNamesAndLines(t *testing.T) {
	for name, want := range map[string]string{
		"AbsYG": "abs_yg", "TopK": "top_k", "ReadABFile": "read_ab_file", "Plan": "plan",
	} {
		if found := (Call{Name: name}).snakeName(); found != want {
			t.Errorf("%s is %s, expected %s", name, found, want)
		}
	}
	long := Call{Name: "Long" + strings.Repeat("er", 16), Result: "int64"}
	for i := range 12 {
		stem := strings.Repeat("input", 2) + string(rune('A'+i))
		long.Parameters = append(long.Parameters, Parameter{stem + "Array", "int64"},
			Parameter{stem + "Schema", "int64"})
	}
	for name, write := range map[string]func(List) string{nativeFile: native, hostFile: host} {
		if _, err := formatted(name, write(List{Calls: []Call{long}})); err != nil {
			t.Error(err)
		}
	}
	found := pythonCall(Call{Name: long.Name, Parameters: long.Parameters[:10], Result: "int64"},
		map[string]bool{})
	want := `    Call(
        "long` + strings.Repeat("er", 16) + `",
        "Long` + strings.Repeat("er", 16) + `",
        (*ARROW, *ARROW, *ARROW, *ARROW, *ARROW),
        INT,
    ),
`
	if found != want {
		t.Errorf("got\n%s\nexpected\n%s", found, want)
	}
}
