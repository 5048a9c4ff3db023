package arrowfile

import (
	"os"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Info describes a file for people.
type Info struct {
	Path     string            `json:"path"`
	Kind     string            `json:"kind"`
	Bytes    int64             `json:"bytes"`
	Rows     int64             `json:"rows"`
	Columns  []Column          `json:"columns"`
	Metadata map[string]string `json:"metadata"`
}

// Column is one column of a file.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Inspect verifies a file of any kind and says what it holds.
func Inspect(path string) (Info, error) {
	rec, err := Read(path, "", memory.DefaultAllocator)
	if err != nil {
		return Info{}, err
	}
	defer rec.Release()
	size, err := os.Stat(path)
	if err != nil {
		return Info{}, ioFault(path, "read", err)
	}
	pairs := toMap(rec.Schema().Metadata())
	info := Info{Path: path, Kind: pairs[keyKind], Bytes: size.Size(), Rows: rec.NumRows(), Metadata: pairs}
	for _, f := range rec.Schema().Fields() {
		info.Columns = append(info.Columns, Column{f.Name, f.Type.String()})
	}
	return info, nil
}
