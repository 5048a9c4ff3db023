// Package tensorfolder makes statistics from a folder of dumped tensors: the activations, gradients
// and weights that a calibration wrote as tensor files.
package tensorfolder

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"agflow/bridge/ipcfile"
	"agflow/bridge/tables"
	"agflow/core/fault"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
)

// weightsFile is the file of a folder that holds the weights of the units; a folder may lack it.
const weightsFile = "weights.arrow"

// Statistics makes the statistics of a folder of tensor files: weights.arrow where there is one,
// and batch-*.arrow in the order of their names. The table equals, bit for bit, the one made while
// the batches were calibrated. The layers are those of the first batch, in the order of its y
// columns; where files give a metadata key differently, the last one counts.
func Statistics(folder string, workers int) (statistics.Table, error) {
	batches, err := batchFiles(folder)
	if err != nil {
		return statistics.Table{}, err
	}
	s := sums{workers: workers, metadata: map[string]string{}}
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
	table := s.accumulator.Table()
	table.Metadata = s.metadata
	return table, nil
}

// batchFiles lists the batches of a folder, sorted by name.
func batchFiles(folder string) (paths []string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, ipcfile.IOFault(folder, "read", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, "batch-") && strings.HasSuffix(name, ".arrow") {
			paths = append(paths, filepath.Join(folder, name))
		}
	}
	if len(paths) == 0 {
		return nil, fault.New(fault.Empty,
			"%s holds no batch-*.arrow; write one with calibrate's dump first", folder)
	}
	return paths, nil
}

// sums are the statistics of the files read so far.
type sums struct {
	workers     int
	model       statistics.Model
	layers      []statistics.Layer
	index       map[string]int // of a layer's name
	accumulator *statistics.Accumulator
	metadata    map[string]string
}

// read lends the columns of one file to a step.
func (s *sums) read(path string, step func([]tables.Tensor, arrow.Record) error) error {
	return ipcfile.Use(path, tables.KindTensor, func(rec arrow.Record) error {
		tensors, err := tables.Tensors(rec)
		if err != nil {
			return err
		}
		return step(tensors, rec)
	})
}

// addBatch adds the pairs of one batch; the first batch also fixes the layers.
func (s *sums) addBatch(tensors []tables.Tensor, rec arrow.Record) error {
	if err := s.open(tensors, rec); err != nil {
		return err
	}
	gradients := map[string]tables.Tensor{}
	for _, t := range tensors {
		if t.Role == "g" {
			gradients[t.Layer.Name] = t
		}
	}
	added := 0
	for _, y := range tensors {
		if y.Role != "y" {
			continue
		}
		g, found := gradients[y.Layer.Name]
		if !found {
			return fault.New(fault.Layer,
				"layer %q has a y column but no g column; write the batch again", y.Layer.Name)
		}
		at, err := s.find(y)
		if err != nil {
			return err
		}
		if err := s.accumulator.Add(at, int(rec.NumRows()), y.View, g.View); err != nil {
			return err
		}
		added++
	}
	if added != len(s.layers) {
		return fault.New(fault.Layer,
			"the batch has %d layers, the first batch has %d; keep batches "+
				"of one run in a folder", added, len(s.layers))
	}
	return nil
}

// addWeights adds the weights of all layers.
func (s *sums) addWeights(tensors []tables.Tensor, rec arrow.Record) error {
	if err := s.sameModel(rec); err != nil {
		return err
	}
	for _, w := range tensors {
		if w.Role != "w" {
			return fault.New(fault.Value, "column %q has the role %q, expected w; keep batches in "+
				"batch-*.arrow", w.Column, w.Role)
		}
		at, err := s.find(w)
		if err != nil {
			return err
		}
		if err := s.accumulator.AddWeight(at, w.UnitAxis, w.View); err != nil {
			return err
		}
	}
	return nil
}

// open starts the sums at the first batch, and compares later ones with its model.
func (s *sums) open(tensors []tables.Tensor, rec arrow.Record) (err error) {
	if s.accumulator != nil {
		return s.sameModel(rec)
	}
	if s.model, _, err = tables.TensorMetadata(rec); err != nil {
		return err
	}
	s.index = map[string]int{}
	for _, t := range tensors {
		if t.Role == "y" {
			s.index[t.Layer.Name] = len(s.layers)
			s.layers = append(s.layers, t.Layer)
		}
	}
	if s.accumulator, err = statistics.NewAccumulator(s.model, s.layers, s.workers); err != nil {
		return err
	}
	return s.sameModel(rec)
}

// sameModel refuses a file of another model and takes over its metadata.
func (s *sums) sameModel(rec arrow.Record) error {
	model, metadata, err := tables.TensorMetadata(rec)
	if err != nil {
		return err
	}
	if model != s.model {
		return fault.New(fault.Value,
			"the file is of model %+v, the first batch of %+v; keep files "+
				"of one run in a folder", model, s.model)
	}
	maps.Copy(s.metadata, metadata)
	return nil
}

// find is the place of a column's layer, which must have the sizes it had in the first batch.
func (s *sums) find(t tables.Tensor) (int, error) {
	at, found := s.index[t.Layer.Name]
	if !found || s.layers[at] != t.Layer {
		return 0, fault.New(fault.Layer, "column %q describes layer %+v, which the first batch "+
			"doesn't have; keep files of one run in a folder", t.Column, t.Layer)
	}
	return at, nil
}
