package tensorfolder

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"agflow/bridge/internal/samples"
	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
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
		case *tensor.Float16: // subnormal ones are among them
			*at = tensor.Float16(r.Uint32N(0x7c00) | r.Uint32()&0x8000)
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

// write writes a record batch to a folder.
func write(t *testing.T, folder, name string, rec arrow.Record) {
	if _, err := tables.Write(filepath.Join(folder, name), rec); err != nil {
		t.Fatal(err)
	}
}

// TestFilesEqualMemory proves for every dtype that files give the same bits as the sums made in
// memory.
func TestFilesEqualMemory(t *testing.T) {
	t.Run("float32", filesEqualMemory[float32])
	t.Run("float64", filesEqualMemory[float64])
	t.Run("float16", filesEqualMemory[tensor.Float16])
	t.Run("bfloat16", filesEqualMemory[tensor.BFloat16])
}

func filesEqualMemory[T tensor.Element](t *testing.T) {
	folder := t.TempDir()
	source := rand.New(rand.NewPCG(1, 2))
	sums, err := statistics.NewAccumulator(samples.Model, samples.Layers, 2)
	if err != nil {
		t.Fatal(err)
	}
	seed := map[string]string{"agflow.seed": "7"}
	write(t, folder, weightsFile,
		randomWeights[T](t, source, sums).Record("tensor", samples.Model, seed))
	for batch := range 3 {
		data := map[string]string{"agflow.data": fmt.Sprintf("after %d", batch)}
		rec := randomBatch[T](t, source, sums).Record("tensor", samples.Model, data)
		write(t, folder, fmt.Sprintf("batch-%04d.arrow", batch), rec)
	}
	got, err := Statistics(folder, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := sums.Table()
	want.Metadata = map[string]string{"agflow.seed": "7", "agflow.data": "after 2"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nexpected %+v", got, want)
	}
}

// randomWeights makes the weights of all layers, for a file and for the sums.
func randomWeights[T tensor.Element](
	t *testing.T, source *rand.Rand, sums *statistics.Accumulator,
) *samples.TensorFile {
	f := &samples.TensorFile{}
	for i, l := range samples.Layers {
		for axis, rows := range []int{l.Channels(), 6} {
			channels := []int{6, l.Channels()}[axis]
			w := random[T](source, rows*channels)
			samples.Put(f, l, fmt.Sprintf("w%d", axis), axis, 1, w)
			if err := sums.AddWeight(i, axis, matrix(t, w, channels)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f
}

// randomBatch makes the activations and gradients of all layers, for a file and for the sums.
func randomBatch[T tensor.Element](
	t *testing.T, source *rand.Rand, sums *statistics.Accumulator,
) *samples.TensorFile {
	const images, tokens = 3, 5
	f := &samples.TensorFile{}
	for i, l := range samples.Layers {
		n := images * tokens * l.Channels()
		y, g := random[T](source, n), random[T](source, n)
		samples.Put(f, l, "y", 0, images, y)
		samples.Put(f, l, "g", 0, images, g)
		yView, gView := matrix(t, y, l.Channels()), matrix(t, g, l.Channels())
		if err := sums.Add(i, images, yView, gView); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// TestBadFilesNameThemselves proves that what can't be added is refused with the file's name.
func TestBadFilesNameThemselves(t *testing.T) {
	good := func(l statistics.Layer) *samples.TensorFile {
		f := &samples.TensorFile{}
		samples.Put(f, l, "y", 0, 1, make([]float32, 2*l.Channels()))
		samples.Put(f, l, "g", 0, 1, make([]float32, 2*l.Channels()))
		return f
	}
	first, other := samples.Layers[0], samples.Layers[1]
	n := first.Channels()
	var noGradient, unequal, mixed samples.TensorFile
	samples.Put(&noGradient, first, "y", 0, 1, make([]float32, n))
	samples.Put(&unequal, first, "y", 0, 1, make([]float32, 2*n))
	samples.Put(&unequal, first, "g", 0, 1, make([]float32, n))
	samples.Put(&mixed, first, "y", 0, 1, make([]float32, 2*n))
	samples.Put(&mixed, first, "g", 0, 1, make([]tensor.BFloat16, 2*n))
	for name, test := range map[string]struct {
		file  *samples.TensorFile
		model statistics.Model
		code  fault.Code
	}{
		"other layer": {good(other), samples.Model, fault.Layer},
		"other model": {good(first), statistics.Model{Name: "b"}, fault.Value},
		"no gradient": {&noGradient, samples.Model, fault.Layer},
		"other shape": {&unequal, samples.Model, fault.Shape},
		"other dtype": {&mixed, samples.Model, fault.Dtype},
	} {
		folder := t.TempDir()
		write(t, folder, "batch-0.arrow", good(first).Record("tensor", samples.Model, nil))
		write(t, folder, "batch-1.arrow", test.file.Record("tensor", test.model, nil))
		_, err := Statistics(folder, 1)
		if fault.CodeOf(err) != test.code || !strings.Contains(err.Error(), "batch-1.arrow") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Statistics(t.TempDir(), 1); fault.CodeOf(err) != fault.Empty {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := Statistics("/none", 1); fault.CodeOf(err) != fault.IO {
		t.Errorf("missing folder: %v", err)
	}
}
