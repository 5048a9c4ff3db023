package tensor_test

import (
	"math"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// A View shows the caller's own memory, row by row.
func TestViewBorrows(t *testing.T) {
	data := []float32{0, 1, 2, 3, 4, 5}
	v, err := tensor.NewView(data, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if v.Rows() != 2 || v.Channels() != 3 || &v.Data()[0] != &data[0] || &v.Row(1)[0] != &data[3] {
		t.Fatal("the view does not show the caller's memory")
	}
	if row := v.Row(0); len(row) != 3 || cap(row) != 3 {
		t.Fatalf("a row has length %d and capacity %d; it must not reach into the next", len(row), cap(row))
	}
}

func TestViewMayHaveNoRows(t *testing.T) {
	if v, err := tensor.NewView(nil, 0, 4); err != nil || v.Rows() != 0 || v.Channels() != 4 {
		t.Fatalf("got %v, %v", v, err)
	}
}

func TestViewRefusesSizesThatDoNotFit(t *testing.T) {
	for _, c := range []struct{ elements, rows, channels int }{
		{6, 2, 4}, {6, 4, 2}, {7, 2, 3}, {5, 2, 3}, {6, -2, -3}, {0, 0, 0}, {0, 3, 0}, {4, 1, 3},
		{0, math.MaxInt, 2}, {0, 1 << 62, 4}, // products that overflow to small numbers
	} {
		if _, err := tensor.NewView(make([]float32, c.elements), c.rows, c.channels); fault.CodeOf(err) != fault.Shape || err == nil {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}
