package arrowfile

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"agflow/core/fault"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
)

// weightsFile is the file of a folder that holds the weights of the units; a folder may lack it.
const weightsFile = "weights.arrow"

// TensorFiles makes the statistics of a folder of tensor files: weights.arrow where there is one, and batch-*.arrow in
// the order of their names. The table equals, bit for bit, the one made while the batches were seen. The layers are
// those of the first batch, in the order of its y columns; where files give a metadata key differently, the last one
// counts.
func TensorFiles(folder string, workers int) (statistics.Table, error) {
	batches, err := batchFiles(folder)
	if err != nil {
		return statistics.Table{}, err
	}
	s := tensorSums{workers: workers, metadata: map[string]string{}}
	for _, path := range batches {
		if err := s.read(path, s.addBatch); err != nil {
			return statistics.Table{}, err
		}
	}
	weights := filepath.Join(folder, weightsFile)
	if _, err := os.Stat(weights); !errors.Is(err, fs.ErrNotExist) {
		if err := s.read(weights, s.addWeights); err != nil {
			return statistics.Table{}, err
		}
	}
	table := s.sums.Table()
	table.Metadata = s.metadata
	return table, nil
}

// batchFiles lists the batches of a folder, sorted by name.
func batchFiles(folder string) (paths []string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, ioFault(folder, "read", err)
	}
	for _, entry := range entries {
		if name := entry.Name(); strings.HasPrefix(name, "batch-") && strings.HasSuffix(name, ".arrow") {
			paths = append(paths, filepath.Join(folder, name))
		}
	}
	if len(paths) == 0 {
		return nil, fault.New(fault.Empty, "%s holds no batch-*.arrow; write one with calibrate's dump first", folder)
	}
	return paths, nil
}

// tensorSums gathers the statistics of tensor files.
type tensorSums struct {
	workers  int
	model    statistics.Model
	layers   []statistics.Layer
	index    map[string]int // of a layer's name
	sums     *statistics.Accumulator
	metadata map[string]string
}

// read lends the columns of one file on.
func (s *tensorSums) read(path string, add func([]tensorColumn, arrow.Record) error) error {
	return Use(path, KindTensor, func(rec arrow.Record) error {
		columns, err := tensorColumns(rec)
		if err != nil {
			return err
		}
		return add(columns, rec)
	})
}

// addBatch adds the pairs of one batch; the first batch also says which layers there are.
func (s *tensorSums) addBatch(columns []tensorColumn, rec arrow.Record) error {
	if err := s.open(columns, rec); err != nil {
		return err
	}
	gradients := map[string]tensorColumn{}
	for _, c := range columns {
		if c.role == "g" {
			gradients[c.layer.Name] = c
		}
	}
	added := 0
	for _, y := range columns {
		if y.role != "y" {
			continue
		}
		g, found := gradients[y.layer.Name]
		if !found {
			return fault.New(fault.Layer, "layer %q has a y column but no g column; write the batch again", y.layer.Name)
		}
		at, err := s.find(y)
		if err != nil {
			return err
		}
		if err := s.sums.Add(at, int(rec.NumRows()), y.view, g.view); err != nil {
			return err
		}
		added++
	}
	if added != len(s.layers) {
		return fault.New(fault.Layer, "the batch has %d layers, the first batch has %d; keep batches of one run in a folder", added, len(s.layers))
	}
	return nil
}

// addWeights adds the weights of all layers.
func (s *tensorSums) addWeights(columns []tensorColumn, rec arrow.Record) error {
	if err := s.sameModel(rec); err != nil {
		return err
	}
	for _, w := range columns {
		if w.role != "w" {
			return fault.New(fault.Value, "column %q has the role %q, expected w; keep batches in batch-*.arrow", w.name, w.role)
		}
		at, err := s.find(w)
		if err != nil {
			return err
		}
		if err := s.sums.AddWeight(at, w.unitAxis, w.view); err != nil {
			return err
		}
	}
	return nil
}

// open starts the sums at the first batch, and holds later ones against its model.
func (s *tensorSums) open(columns []tensorColumn, rec arrow.Record) (err error) {
	if s.sums != nil {
		return s.sameModel(rec)
	}
	if s.model, err = getModel(toMap(rec.Schema().Metadata())); err != nil {
		return err
	}
	s.index = map[string]int{}
	for _, c := range columns {
		if c.role == "y" {
			s.index[c.layer.Name] = len(s.layers)
			s.layers = append(s.layers, c.layer)
		}
	}
	if s.sums, err = statistics.NewAccumulator(s.model, s.layers, s.workers); err != nil {
		return err
	}
	return s.sameModel(rec)
}

// sameModel refuses a file of another model and takes over its metadata.
func (s *tensorSums) sameModel(rec arrow.Record) error {
	pairs := toMap(rec.Schema().Metadata())
	model, err := getModel(pairs)
	if err != nil {
		return err
	}
	if model != s.model {
		return fault.New(fault.Value, "the file is of model %+v, the first batch of %+v; keep files of one run in a folder", model, s.model)
	}
	maps.Copy(s.metadata, tableMetadata(pairs))
	return nil
}

// find is the place of a column's layer, which must have the sizes it had in the first batch.
func (s *tensorSums) find(c tensorColumn) (int, error) {
	at, found := s.index[c.layer.Name]
	if !found || s.layers[at] != c.layer {
		return 0, fault.New(fault.Layer, "column %q describes layer %+v, which the first batch doesn't have; keep files of one run in a folder", c.name, c.layer)
	}
	return at, nil
}

// sentence is an error's text without its code.
func sentence(err error) string {
	var known *fault.Error
	if errors.As(err, &known) {
		return known.Text
	}
	return err.Error()
}
