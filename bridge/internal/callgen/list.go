package callgen

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
)

// List is the list of calls, ordered by name, with the types that their requests and results have
// as JSON.
type List struct {
	Calls []Call
	// one line a request or result: the function that reads or writes it, and its type
	JSON []string
}

// Call is one function of bridge/abi.
type Call struct {
	Name       string // in Go
	Parameters []Parameter
	Result     string // int64 or string; an error stands beside it
}

// Parameter is one parameter of a call; its type is int64, float64 or string.
type Parameter struct {
	Name, Type string
}

// Number identifies the list: a hash of the signatures, parameter names included, and of the types
// that cross as JSON. It is not negative.
func (l List) Number() int64 {
	lines := make([]string, 0, len(l.Calls)+len(l.JSON))
	for _, c := range l.Calls {
		lines = append(lines, c.signature())
	}
	lines = append(lines, l.JSON...)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return int64(binary.BigEndian.Uint64(sum[:]) >> 1)
}

func (c Call) signature() string {
	parameters := make([]string, len(c.Parameters))
	for i, p := range c.Parameters {
		parameters[i] = p.Name + " " + p.Type
	}
	return fmt.Sprintf("%s(%s) %s", c.Name, strings.Join(parameters, ", "), c.Result)
}

// snakeName is the name of the call in C and Python: AbsYG is abs_yg. A run of capitals is one
// word.
func (c Call) snakeName() string {
	letters := []rune(c.Name)
	var name strings.Builder
	for i, letter := range letters {
		begins := i > 0 && unicode.IsUpper(letter) &&
			(!unicode.IsUpper(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1]))
		if begins {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToLower(letter))
	}
	return name.String()
}

// names are the names of the parameters.
func (c Call) names() []string {
	names := make([]string, len(c.Parameters))
	for i, p := range c.Parameters {
		names[i] = p.Name
	}
	return names
}

// typed lists the parameters as Go does, with a type once for all parameters in a row that have it.
func (c Call) typed(typeOf func(string) string) []string {
	typed := c.names()
	for i, p := range c.Parameters {
		if i+1 == len(c.Parameters) || c.Parameters[i+1].Type != p.Type {
			typed[i] += " " + typeOf(p.Type)
		}
	}
	return typed
}

// arrowStem returns what an Arrow array's parameter and its schema's share of their names, "y" of
// yArray and ySchema.
func arrowStem(name, end string) (stem string, is bool) {
	if strings.EqualFold(name, end) {
		return "", true
	}
	return strings.CutSuffix(name, end)
}
