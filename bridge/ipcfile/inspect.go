package ipcfile

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
func Inspect(path string) (info Info, err error) {
	err = withMapping(path, func(m *mapping) error {
		rec, err := m.read("", m.buffer)
		if err != nil {
			return err
		}
		defer rec.Release()
		pairs := Pairs(rec.Schema().Metadata())
		info = Info{Path: path, Kind: pairs[KeyKind], Bytes: int64(len(m.bytes)),
			Rows: rec.NumRows(), Metadata: pairs}
		for _, f := range rec.Schema().Fields() {
			info.Columns = append(info.Columns, Column{f.Name, f.Type.String()})
		}
		return nil
	})
	return info, err
}
