package arrowfile

import (
	"strconv"

	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Predictions are the answers of the light and the heavy expert to the same labelled samples.
type Predictions struct {
	Label      []int64
	Light      []int64   // class that the light expert predicts
	LightPrior []float32 // how sure it is, in [0, 1]
	Heavy      []int64
	Prior      string // what LightPrior measures, "max_probability"
	Cost       routing.Cost
	Metadata   map[string]string
}

// Outcomes says who is right, which is all that calibration looks at.
func (p Predictions) Outcomes() routing.Outcomes {
	o := routing.Outcomes{
		Prior:        p.LightPrior,
		LightCorrect: make([]bool, len(p.Label)),
		HeavyCorrect: make([]bool, len(p.Label)),
	}
	for i, label := range p.Label {
		o.LightCorrect[i] = p.Light[i] == label
		o.HeavyCorrect[i] = p.Heavy[i] == label
	}
	return o
}

// PredictionsToRecord has one row a sample: label, light_prediction int64; light_prior float32; heavy_prediction
// int64. Metadata: agflow.prior and the costs agflow.light_macs, agflow.heavy_macs, agflow.shared_macs of one image.
func PredictionsToRecord(alloc memory.Allocator, p Predictions) arrow.Record {
	c := columns{alloc: alloc}
	c.int64s("label", p.Label)
	c.int64s("light_prediction", p.Light)
	c.float32s("light_prior", p.LightPrior)
	c.int64s("heavy_prediction", p.Heavy)
	return c.record(KindPredictions, p.pairs())
}

func (p Predictions) pairs() map[string]string {
	pairs := copied(p.Metadata)
	pairs[keyPrior] = p.Prior
	pairs[keyLightMACs] = strconv.FormatInt(p.Cost.Light, 10)
	pairs[keyHeavyMACs] = strconv.FormatInt(p.Cost.Heavy, 10)
	pairs[keySharedMACs] = strconv.FormatInt(p.Cost.Shared, 10)
	return pairs
}

// PredictionsFromRecord copies the predictions out of a record batch.
func PredictionsFromRecord(rec arrow.Record) (Predictions, error) {
	x := extract(rec, KindPredictions)
	p := Predictions{
		Label:      x.int64s("label"),
		Light:      x.int64s("light_prediction"),
		LightPrior: x.float32s("light_prior"),
		Heavy:      x.int64s("heavy_prediction"),
		Prior:      x.pairs[keyPrior],
		Cost:       routing.Cost{Light: x.integer(keyLightMACs), Heavy: x.integer(keyHeavyMACs), Shared: x.integer(keySharedMACs)},
		Metadata:   tableMetadata(x.pairs, keyPrior, keyLightMACs, keyHeavyMACs, keySharedMACs),
	}
	if x.err != nil {
		return Predictions{}, x.err
	}
	return p, nil
}

// PriorsToRecord has one row a sample: prediction int64, prior float32. It is a result, not a file.
func PriorsToRecord(alloc memory.Allocator, predictions []int32, priors []float32) arrow.Record {
	classes := make([]int64, len(predictions))
	for i, class := range predictions {
		classes[i] = int64(class)
	}
	c := columns{alloc: alloc}
	c.int64s("prediction", classes)
	c.float32s("prior", priors)
	return c.record("priors", map[string]string{keyPrior: "max_probability"})
}
