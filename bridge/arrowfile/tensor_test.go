package arrowfile

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// tensorFile collects the columns of a tensor file.
type tensorFile struct {
	fields []arrow.Field
	arrays []arrow.Array
	rows   int
}

func (f *tensorFile) put(l statistics.Layer, role string, axis, rows int, values []float32) {
	size := len(values) / rows
	b := array.NewFixedSizeListBuilder(memory.DefaultAllocator, int32(size), arrow.PrimitiveTypes.Float32)
	for row := range rows {
		b.Append(true)
		b.ValueBuilder().(*array.Float32Builder).AppendValues(values[row*size:][:size], nil)
	}
	list := b.NewArray()
	metadata := fromMap(map[string]string{
		"agflow.layer": l.Name, "agflow.group": l.Group, "agflow.role": role[:1], "agflow.units": strconv.Itoa(l.Units),
		"agflow.unit_width": strconv.Itoa(l.UnitWidth), "agflow.unit_macs": fmt.Sprint(l.UnitMACs),
		"agflow.unit_params": fmt.Sprint(l.UnitParams), "agflow.unit_axis": strconv.Itoa(axis),
	})
	f.fields = append(f.fields, arrow.Field{Name: l.Name + "." + role, Type: list.DataType(), Metadata: metadata})
	f.arrays = append(f.arrays, list)
	f.rows = rows
}

func (f *tensorFile) record(model statistics.Model, more map[string]string) arrow.Record {
	pairs := copied(more)
	putModel(pairs, model)
	pairs[keyKind] = KindTensor
	metadata := fromMap(pairs)
	return array.NewRecord(arrow.NewSchema(f.fields, &metadata), f.arrays, int64(f.rows))
}

func randomValues(r *rand.Rand, n int) []float32 {
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(r.NormFloat64())
	}
	return values
}

func view(t *testing.T, values []float32, channels int) tensor.View {
	v, err := tensor.NewView(values, len(values)/channels, channels)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestTensorFilesEqualMemory proves that the road over files gives the same bits as the sums made in memory, and gives
// every byte back.
func TestTensorFilesEqualMemory(t *testing.T) {
	const images, tokens = 3, 5
	folder := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
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
			w := randomValues(random, rows*channels)
			weights.put(l, fmt.Sprintf("w%d", axis), axis, 1, w)
			if err := sums.AddWeight(i, axis, view(t, w, channels)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(weightsFile, &weights, map[string]string{"agflow.seed": "7"})
	for batch := range 3 {
		var f tensorFile
		for i, l := range sampleLayers {
			y, g := randomValues(random, images*tokens*l.Channels()), randomValues(random, images*tokens*l.Channels())
			f.put(l, "y", 0, images, y)
			f.put(l, "g", 0, images, g)
			if err := sums.Add(i, images, view(t, y, l.Channels()), view(t, g, l.Channels())); err != nil {
				t.Fatal(err)
			}
		}
		write(fmt.Sprintf("batch-%04d.arrow", batch), &f, map[string]string{"agflow.data": fmt.Sprintf("after %d", batch)})
	}
	alloc := memory.NewCheckedAllocator(mallocator.NewMallocator())
	defer alloc.AssertSize(t, 0)
	got, err := TensorFiles(folder, 1, alloc)
	if err != nil {
		t.Fatal(err)
	}
	want := sums.Table()
	want.Metadata = map[string]string{"agflow.seed": "7", "agflow.data": "after 2"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nexpected %+v", got, want)
	}
}

// TestBadTensorFilesNameThemselves proves that what can't be added is refused with the file's name.
func TestBadTensorFilesNameThemselves(t *testing.T) {
	good := func(l statistics.Layer) *tensorFile {
		f := &tensorFile{}
		f.put(l, "y", 0, 1, make([]float32, 2*l.Channels()))
		f.put(l, "g", 0, 1, make([]float32, 2*l.Channels()))
		return f
	}
	first, other := sampleLayers[0], sampleLayers[1]
	noGradient := &tensorFile{}
	noGradient.put(first, "y", 0, 1, make([]float32, first.Channels()))
	unequal := &tensorFile{}
	unequal.put(first, "y", 0, 1, make([]float32, 2*first.Channels()))
	unequal.put(first, "g", 0, 1, make([]float32, first.Channels()))
	for name, test := range map[string]struct {
		record arrow.Record
		code   fault.Code
	}{
		"other layer": {good(other).record(sampleModel, nil), fault.Layer},
		"other model": {good(first).record(statistics.Model{Name: "b"}, nil), fault.Value},
		"no gradient": {noGradient.record(sampleModel, nil), fault.Layer},
		"other shape": {unequal.record(sampleModel, nil), fault.Shape},
	} {
		folder := t.TempDir()
		for file, rec := range map[string]arrow.Record{"batch-0.arrow": good(first).record(sampleModel, nil), "batch-1.arrow": test.record} {
			if _, err := Write(filepath.Join(folder, file), rec); err != nil {
				t.Fatal(name, err)
			}
		}
		_, err := TensorFiles(folder, 1, memory.DefaultAllocator)
		if fault.CodeOf(err) != test.code || !strings.Contains(err.Error(), "batch-1.arrow") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := TensorFiles(t.TempDir(), 1, memory.DefaultAllocator); fault.CodeOf(err) != fault.Empty {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := TensorFiles("/none", 1, memory.DefaultAllocator); fault.CodeOf(err) != fault.IO {
		t.Errorf("missing folder: %v", err)
	}
}
