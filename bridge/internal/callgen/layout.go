package callgen

import (
	"fmt"
	"go/format"
	"strings"
)

const (
	maxColumns = 100
	tabColumns = 4
)

// columns is the width of a line.
func columns(line string) int {
	return len([]rune(line)) + (tabColumns-1)*strings.Count(line, "\t")
}

// list writes items between an opening and a closing on one line, or, where that is too long, on
// lines between them that are indented one tab more.
func list(indent, open string, items []string, end string) string {
	whole := indent + open + strings.Join(items, ", ") + end
	if columns(whole) <= maxColumns || len(items) == 0 {
		return whole + "\n"
	}
	text, line := indent+open+"\n", indent+"\t"
	for i, item := range items {
		if i > 0 && columns(line+item+",") > maxColumns {
			text, line = text+strings.TrimRight(line, " ")+"\n", indent+"\t"
		}
		line += item + ", "
	}
	return text + strings.TrimRight(line, " ") + "\n" + indent + end + "\n"
}

// formatted runs gofmt over generated code and refuses lines that are too long.
func formatted(name, code string) ([]byte, error) {
	content, err := format.Source([]byte(code))
	if err != nil {
		return nil, fmt.Errorf("%s as generated is not Go: %w", name, err)
	}
	for i, line := range strings.Split(string(content), "\n") {
		if columns(line) > maxColumns {
			return nil, fmt.Errorf("line %d of %s as generated is longer than %d columns; shorten "+
				"the names of the call",
				i+1, name, maxColumns)
		}
	}
	return content, nil
}
