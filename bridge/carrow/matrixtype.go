package carrow

import (
	"strconv"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// matrixType is what the schema of a matrix says.
type matrixType struct {
	dtype            tensor.Dtype
	channels, stride int64 // in values
	positions        int64 // of maps, else 0
}

// width is the number of values of a list.
func (m matrixType) width() int64 { return m.channels * max(m.positions, 1) }

func readMatrixType(name string, s *cSchema) (kind matrixType, err error) {
	list, err := formatOf(name, s)
	if err != nil {
		return kind, err
	}
	size, ok := listSize(string(list))
	if !ok {
		return kind, fault.New(fault.Dtype,
			"%s: expected a fixed-size list of floats, one list a row, found Arrow format %q",
			name, list)
	}
	child, err := onlyChild[cSchema](name, "schema", s.children, s.nChildren)
	if err != nil {
		return kind, err
	}
	item, err := formatOf(name, child)
	if err != nil {
		return kind, err
	}
	width := int64(size)
	notes := matrixNotes{stride: width}
	if err := eachPair(name, s.metadata, notes.read); err != nil {
		return kind, err
	}
	kind = matrixType{
		channels:  width / max(notes.positions, 1),
		stride:    notes.stride,
		positions: notes.positions,
	}
	if kind.dtype, ok = elementType(string(item), notes.dtype); !ok || child.nChildren != 0 {
		return kind, fault.New(fault.Dtype,
			"%s: expected lists of float32 (f), float64 (g), float16 (e), or uint16 (S) with the "+
				"metadata agflow.dtype=bfloat16; found Arrow format %q, agflow.dtype=%q",
			name, item, notes.dtype)
	}
	if notes.badStride || kind.stride < width || kind.stride > maxRows {
		return kind, fault.New(fault.Shape,
			"%s: the metadata agflow.row_stride must be the number of values from list to list, "+
				"at least the %d of a list", name, width)
	}
	if notes.badPositions || kind.width() != width {
		return kind, fault.New(fault.Shape,
			"%s: the metadata agflow.positions must be the number of positions of each channel, "+
				"a divisor of the %d values of a list", name, width)
	}
	return kind, nil
}

// matrixNotes are the metadata of a matrix.
type matrixNotes struct {
	dtype                   string
	stride, positions       int64
	badStride, badPositions bool // agflow.row_stride or agflow.positions is no such number
}

func (n *matrixNotes) read(key, value []byte) {
	var err error
	switch string(key) {
	case "agflow.dtype":
		n.dtype = string(value)
	case "agflow.row_stride":
		n.stride, err = strconv.ParseInt(string(value), 10, 64)
		n.badStride = n.badStride || err != nil
	case "agflow.positions":
		n.positions, err = strconv.ParseInt(string(value), 10, 64)
		n.badPositions = n.badPositions || err != nil || n.positions < 1
	}
}

// elementType reads an Arrow format and the dtype declared for it; only bfloat16, which Arrow
// lacks, needs one.
func elementType(format, declared string) (tensor.Dtype, bool) {
	dtype := tensor.BFloat16Type
	switch format {
	case "f":
		dtype = tensor.Float32Type
	case "g":
		dtype = tensor.Float64Type
	case "e":
		dtype = tensor.Float16Type
	case "S":
		return dtype, declared == dtype.String()
	default:
		return dtype, false
	}
	return dtype, declared == "" || declared == dtype.String()
}
