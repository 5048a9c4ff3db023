package carrow

import "strings"

// typeNames are the names of Arrow's formats, for errors.
var typeNames = map[string]string{
	"n": "null", "b": "bool", "c": "int8", "C": "uint8", "s": "int16", "S": "uint16",
	"i": "int32", "I": "uint32", "l": "int64", "L": "uint64", "e": "float16", "f": "float32",
	"g": "float64", "z": "binary", "Z": "large_binary", "vz": "binary_view", "u": "utf8",
	"U": "large_utf8", "vu": "utf8_view", "tdD": "date32", "tdm": "date64", "+l": "a list",
	"+L": "a large list", "+vl": "a list view", "+vL": "a large list view", "+s": "a struct",
	"+m": "a map", "+r": "run-end encoded",
}

// typePrefixes are those of the formats with parameters.
var typePrefixes = []struct{ prefix, name string }{
	{"d:", "decimal"}, {"w:", "fixed-size binary"}, {"tt", "time"}, {"ts", "timestamp"},
	{"tD", "duration"}, {"ti", "interval"}, {"+w:", "a fixed-size list"}, {"+u", "a union"},
}

// typeName is an Arrow format in words.
func typeName(format string) string {
	if name, known := typeNames[format]; known {
		return name
	}
	for _, known := range typePrefixes {
		if strings.HasPrefix(format, known.prefix) {
			return known.name
		}
	}
	if len(format) > 20 {
		format = format[:20] + "…"
	}
	return "the unknown Arrow format \"" + strings.ToValidUTF8(format, "?") + "\""
}
