package tables

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"agflow/bridge/internal/samples"
	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// TestTensorsAreViewedInPlace proves for every dtype that a view shows the record batch's own
// elements.
func TestTensorsAreViewedInPlace(t *testing.T) {
	t.Run("float32", viewedInPlace[float32])
	t.Run("float64", viewedInPlace[float64])
	t.Run("float16", viewedInPlace[tensor.Float16])
	t.Run("bfloat16", viewedInPlace[tensor.BFloat16])
}

func viewedInPlace[T tensor.Element](t *testing.T) {
	path := filepath.Join(t.TempDir(), "tensor.arrow")
	if _, err := Write(path, samples.Tensor[T]()); err != nil {
		t.Fatal(err)
	}
	err := ipcfile.Use(path, KindTensor, func(rec arrow.Record) error {
		found, err := Tensors(rec)
		if err != nil {
			return err
		}
		for i, c := range found {
			elements, ok := tensor.Elements[T](c.View)
			rows, channels := c.View.Rows(), c.View.Channels()
			if !ok || rows != 4 || channels != samples.Layers[0].Channels() {
				t.Fatalf("%s is a view of %s [%d, %d]", c.Column, c.View.Dtype(), rows, channels)
			}
			for k, element := range elements {
				if element != T(k) {
					t.Errorf("%s: element %d is %v", c.Column, k, element)
				}
			}
			values := rec.Column(i).(*array.FixedSizeList).ListValues().Data().Buffers()[1].Bytes()
			if unsafe.Pointer(&elements[0]) != unsafe.Pointer(&values[0]) {
				t.Errorf("%s was copied", c.Column)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOtherTensorsAreRefused proves that a column which no view can show is refused by name.
func TestOtherTensorsAreRefused(t *testing.T) {
	rec := samples.Tensor[tensor.BFloat16]()
	fields := rec.Schema().Fields()
	pairs := ipcfile.Pairs(fields[1].Metadata)
	delete(pairs, keyDtype)
	fields[1].Metadata = arrow.MetadataFrom(pairs)
	metadata := rec.Schema().Metadata()
	plain := array.NewRecord(arrow.NewSchema(fields, &metadata), rec.Columns(), rec.NumRows())
	numbers := array.NewInt32Builder(memory.DefaultAllocator)
	numbers.AppendValues([]int32{1, 2}, nil)
	scalars := numbers.NewArray()
	described := []arrow.Field{
		{Name: "blocks.0.mlp.y", Type: scalars.DataType(), Metadata: fields[0].Metadata},
	}
	flat := array.NewRecord(arrow.NewSchema(described, &metadata), []arrow.Array{scalars}, 2)
	empty := array.NewRecord(arrow.NewSchema(nil, &metadata), nil, 0)
	for name, test := range map[string]struct {
		rec  arrow.Record
		code fault.Code
		says string
	}{
		"no dtype":   {plain, fault.Dtype, `"blocks.0.mlp.g" is fixed_size_list<item: uint16`},
		"no list":    {flat, fault.Dtype, `"blocks.0.mlp.y" is int32`},
		"no columns": {empty, fault.Empty, "no columns"},
	} {
		_, err := Write(filepath.Join(t.TempDir(), "x.arrow"), test.rec)
		if fault.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestViewsOfNothing proves that a tensor file of no images is one, and reads as views of no rows.
func TestViewsOfNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.arrow")
	if _, err := Write(path, samples.Tensor[tensor.Float16]().NewSlice(1, 1)); err != nil {
		t.Fatal(err)
	}
	err := ipcfile.Use(path, KindTensor, func(rec arrow.Record) error {
		found, err := Tensors(rec)
		if err == nil && found[1].View.Rows() != 0 {
			t.Errorf("%d rows", found[1].View.Rows())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestTruncationUnderWorkers proves that a tensor file which is cut short while goroutines sum it
// up is an error of the file.
func TestTruncationUnderWorkers(t *testing.T) {
	const rows = 16
	l := statistics.Layer{
		Name: "mlp", Group: "mlp", Units: 1024, UnitWidth: 1, Parts: 1, UnitMACs: 1, UnitParams: 1,
	}
	var f samples.TensorFile
	samples.Put(&f, l, "y", 0, rows, make([]float32, 1<<18))
	samples.Put(&f, l, "g", 0, rows, make([]float32, 1<<18))
	for _, size := range []int64{0, 1 << 20} {
		path := filepath.Join(t.TempDir(), "batch-0.arrow")
		if _, err := Write(path, f.Record(KindTensor, samples.Model, nil)); err != nil {
			t.Fatal(err)
		}
		err := ipcfile.Use(path, KindTensor, func(rec arrow.Record) error {
			found, err := Tensors(rec)
			if err != nil {
				return err
			}
			if err := os.Truncate(path, size); err != nil {
				return err
			}
			sums, err := statistics.NewAccumulator(samples.Model, []statistics.Layer{l}, 2)
			if err != nil {
				return err
			}
			return sums.Add(0, rows, found[0].View, found[1].View)
		})
		changed := path + " was changed while it was read"
		if fault.CodeOf(err) != fault.File || !strings.Contains(err.Error(), changed) {
			t.Errorf("cut to %d bytes: %v", size, err)
		}
	}
}
