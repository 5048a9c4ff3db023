package arrowfile

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// random makes elements that are ordinary numbers of any of the types.
func random[T tensor.Element](r *rand.Rand, n int) []T {
	values := make([]T, n)
	for i := range values {
		x := float32(r.NormFloat64())
		switch at := any(&values[i]).(type) {
		case *float32:
			*at = x
		case *float64:
			*at = r.NormFloat64()
		case *tensor.Float16:
			*at = tensor.Float16(r.Uint32N(0x7c00) | r.Uint32()&0x8000) // subnormal ones are among them
		case *tensor.BFloat16:
			*at = tensor.BFloat16(math.Float32bits(x) >> 16)
		}
	}
	return values
}

func matrix[T tensor.Element](t *testing.T, values []T, channels int) tensor.View {
	v, err := tensor.NewView(values, len(values)/channels, channels)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestTensorFilesEqualMemory proves for every dtype that the road over files gives the same bits as the sums made in
// memory.
func TestTensorFilesEqualMemory(t *testing.T) {
	t.Run("float32", filesEqualMemory[float32])
	t.Run("float64", filesEqualMemory[float64])
	t.Run("float16", filesEqualMemory[tensor.Float16])
	t.Run("bfloat16", filesEqualMemory[tensor.BFloat16])
}

func filesEqualMemory[T tensor.Element](t *testing.T) {
	const images, tokens = 3, 5
	folder := t.TempDir()
	source := rand.New(rand.NewPCG(1, 2))
	sums, err := statistics.NewAccumulator(sampleModel, sampleLayers, 2)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, f *tensorFile, more map[string]string) {
		if _, err := Write(filepath.Join(folder, name), f.record(sampleModel, more)); err != nil {
			t.Fatal(err)
		}
	}
	var weights tensorFile
	for i, l := range sampleLayers {
		for axis, rows := range []int{l.Channels(), 6} {
			channels := []int{6, l.Channels()}[axis]
			w := random[T](source, rows*channels)
			put(&weights, l, fmt.Sprintf("w%d", axis), axis, 1, w)
			if err := sums.AddWeight(i, axis, matrix(t, w, channels)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(weightsFile, &weights, map[string]string{"agflow.seed": "7"})
	for batch := range 3 {
		var f tensorFile
		for i, l := range sampleLayers {
			y, g := random[T](source, images*tokens*l.Channels()), random[T](source, images*tokens*l.Channels())
			put(&f, l, "y", 0, images, y)
			put(&f, l, "g", 0, images, g)
			if err := sums.Add(i, images, matrix(t, y, l.Channels()), matrix(t, g, l.Channels())); err != nil {
				t.Fatal(err)
			}
		}
		write(fmt.Sprintf("batch-%04d.arrow", batch), &f, map[string]string{"agflow.data": fmt.Sprintf("after %d", batch)})
	}
	got, err := TensorFiles(folder, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := sums.Table()
	want.Metadata = map[string]string{"agflow.seed": "7", "agflow.data": "after 2"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nexpected %+v", got, want)
	}
}

// TestTensorsAreViewedInPlace proves for every dtype that a view has the file's own elements.
func TestTensorsAreViewedInPlace(t *testing.T) {
	t.Run("float32", viewedInPlace[float32])
	t.Run("float64", viewedInPlace[float64])
	t.Run("float16", viewedInPlace[tensor.Float16])
	t.Run("bfloat16", viewedInPlace[tensor.BFloat16])
}

func viewedInPlace[T tensor.Element](t *testing.T) {
	path := filepath.Join(t.TempDir(), "tensor.arrow")
	if _, err := Write(path, sampleTensor[T]()); err != nil {
		t.Fatal(err)
	}
	err := Use(path, KindTensor, func(rec arrow.Record) error {
		columns, err := tensorColumns(rec)
		if err != nil {
			return err
		}
		for _, c := range columns {
			elements, ok := tensor.Elements[T](c.view)
			if !ok || c.view.Rows() != 4 || c.view.Channels() != sampleLayers[0].Channels() {
				t.Fatalf("%s is a view of %s [%d, %d]", c.name, c.view.Dtype(), c.view.Rows(), c.view.Channels())
			}
			for i, element := range elements {
				if element != T(i) {
					t.Errorf("%s: element %d is %v", c.name, i, element)
				}
			}
			first := uintptr(unsafe.Pointer(&elements[0]))
			if !inside(mappings(t, path), first, uintptr(len(elements))*unsafe.Sizeof(elements[0])) {
				t.Errorf("%s lies outside of the file's pages", c.name)
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
	rec := sampleTensor[tensor.BFloat16]()
	fields := rec.Schema().Fields()
	pairs := toMap(fields[1].Metadata)
	delete(pairs, "agflow.dtype")
	fields[1].Metadata = fromMap(pairs)
	metadata := rec.Schema().Metadata()
	plain := array.NewRecord(arrow.NewSchema(fields, &metadata), rec.Columns(), rec.NumRows())
	numbers := array.NewInt32Builder(memory.DefaultAllocator)
	numbers.AppendValues([]int32{1, 2}, nil)
	scalars := numbers.NewArray()
	described := []arrow.Field{{Name: "blocks.0.mlp.y", Type: scalars.DataType(), Metadata: fields[0].Metadata}}
	flat := array.NewRecord(arrow.NewSchema(described, &metadata), []arrow.Array{scalars}, 2)
	empty := array.NewRecord(arrow.NewSchema(nil, &metadata), nil, 0)
	for name, test := range map[string]struct {
		rec  arrow.Record
		code fault.Code
		says string
	}{
		"uint16 without dtype": {plain, fault.Dtype, `"blocks.0.mlp.g" is fixed_size_list<item: uint16`},
		"no list":              {flat, fault.Dtype, `"blocks.0.mlp.y" is int32`},
		"no columns":           {empty, fault.Empty, "no columns"},
	} {
		_, err := Write(filepath.Join(t.TempDir(), "x.arrow"), test.rec)
		if fault.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBadTensorFilesNameThemselves proves that what can't be added is refused with the file's name.
func TestBadTensorFilesNameThemselves(t *testing.T) {
	good := func(l statistics.Layer) *tensorFile {
		f := &tensorFile{}
		put(f, l, "y", 0, 1, make([]float32, 2*l.Channels()))
		put(f, l, "g", 0, 1, make([]float32, 2*l.Channels()))
		return f
	}
	first, other := sampleLayers[0], sampleLayers[1]
	noGradient := &tensorFile{}
	put(noGradient, first, "y", 0, 1, make([]float32, first.Channels()))
	unequal, mixed := &tensorFile{}, &tensorFile{}
	put(unequal, first, "y", 0, 1, make([]float32, 2*first.Channels()))
	put(unequal, first, "g", 0, 1, make([]float32, first.Channels()))
	put(mixed, first, "y", 0, 1, make([]float32, 2*first.Channels()))
	put(mixed, first, "g", 0, 1, make([]tensor.BFloat16, 2*first.Channels()))
	for name, test := range map[string]struct {
		record arrow.Record
		code   fault.Code
	}{
		"other layer": {good(other).record(sampleModel, nil), fault.Layer},
		"other model": {good(first).record(statistics.Model{Name: "b"}, nil), fault.Value},
		"no gradient": {noGradient.record(sampleModel, nil), fault.Layer},
		"other shape": {unequal.record(sampleModel, nil), fault.Shape},
		"other dtype": {mixed.record(sampleModel, nil), fault.Dtype},
	} {
		folder := t.TempDir()
		for file, rec := range map[string]arrow.Record{"batch-0.arrow": good(first).record(sampleModel, nil), "batch-1.arrow": test.record} {
			if _, err := Write(filepath.Join(folder, file), rec); err != nil {
				t.Fatal(name, err)
			}
		}
		_, err := TensorFiles(folder, 1)
		if fault.CodeOf(err) != test.code || !strings.Contains(err.Error(), "batch-1.arrow") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := TensorFiles(t.TempDir(), 1); fault.CodeOf(err) != fault.Empty {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := TensorFiles("/none", 1); fault.CodeOf(err) != fault.IO {
		t.Errorf("missing folder: %v", err)
	}
}
