package tables

import (
	"math"
	"runtime"
	"strconv"
	"strings"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Predictions are the answers of the light and the heavy expert to the same labelled samples.
type Predictions struct {
	Label       []int64
	Light       []int64         // class that the light expert predicts
	Priors      []routing.Prior // its confidence; at least one
	Heavy       []int64
	Ensemble    []int64 // class by the ensemble of both experts; may be absent
	LightWeight float64 // of the light expert in the ensemble
	Temperature float64 // of the priors named *_scaled
	Cost        routing.Cost
	Metadata    map[string]string
}

// priorPrefix begins the names of the columns of all priors but the first; ensembleColumn is not in
// every table.
const (
	priorPrefix    = "prior_"
	ensembleColumn = "ensemble_prediction"
)

// priceKeys are the metadata that hold the cost of the priors that cost more than the light pass.
var priceKeys = map[string]string{routing.Agreement: keyViewCost, routing.Utility: keyUtilityCost}

// PredictionsToRecord has one row a sample: label, light_prediction int64; light_prior float32;
// heavy_prediction int64; where both experts' answers were combined, ensemble_prediction int64;
// and, for every further prior that was recorded, a float32 column prior_ and its name. Metadata:
// agflow.prior names what light_prior is; agflow.temperature, where it is not 1, belongs to the
// priors named *_scaled; agflow.light_weight to ensemble_prediction; agflow.light_cost,
// agflow.heavy_cost and agflow.shared_cost are the costs of one image in agflow.cost_unit.
// agflow.second_view_cost and agflow.utility_cost, where they are there, are what the priors
// agreement and agf cost beside the light pass. agflow.images and agflow.tuning, where they are
// there, are sketches of the images predicted and of those that tuned the experts.
func PredictionsToRecord(alloc memory.Allocator, p Predictions) arrow.Record {
	c := columns{alloc: alloc}
	defer c.release()
	c.int64s("label", p.Label)
	c.int64s("light_prediction", p.Light)
	c.float32s("light_prior", p.Priors[0].Values)
	c.int64s("heavy_prediction", p.Heavy)
	pairs := predictionPairs(p.Metadata, p.Priors[0].Name, p.Temperature, p.Cost)
	if p.Ensemble != nil {
		c.int64s(ensembleColumn, p.Ensemble)
		pairs[keyLightWeight] = formatFloat(p.LightWeight)
	}
	for _, prior := range p.Priors[1:] {
		c.float32s(priorPrefix+prior.Name, prior.Values)
		if key, known := priceKeys[prior.Name]; known && prior.Cost > 0 {
			pairs[key] = formatFloat(prior.Cost)
		}
	}
	return c.record(KindPredictions, pairs)
}

func predictionPairs(
	metadata map[string]string, prior string, temperature float64, cost routing.Cost,
) map[string]string {
	pairs := copied(metadata)
	pairs[keyPrior] = prior
	if temperature != 1 {
		pairs[keyTemperature] = formatFloat(temperature)
	}
	pairs[keyLightCost], pairs[keyHeavyCost] = formatFloat(cost.Light), formatFloat(cost.Heavy)
	pairs[keySharedCost], pairs[keyCostUnit] = formatFloat(cost.Shared), cost.Unit
	return pairs
}

// predictionKeys are the metadata that are fields of Samples. The sketches of images are kept
// beside them.
var predictionKeys = []string{
	keyPrior, keyTemperature, keyLightWeight, keyLightCost, keyHeavyCost, keySharedCost,
	keyViewCost, keyUtilityCost, keyCostUnit,
}

// Samples are predictions as routing needs them: which expert is right, and the light expert's
// confidence.
type Samples struct {
	routing.Samples
	Metadata map[string]string
}

const manyRows = 1 << 22

// LentSamples reads the samples of a record batch of predictions. The priors lie in the record's
// memory; of the other columns a bit a sample is made.
func LentSamples(rec arrow.Record) (Samples, error) {
	x := extract(rec, KindPredictions)
	defer x.release()
	x.lent = true
	if x.rows() >= manyRows {
		runtime.GC() // what the call before left is as large as what this one will need
	}
	label, _ := column[*array.Int64](x, "label")
	s := Samples{Metadata: tableMetadata(x.pairs, predictionKeys...)}
	s.LightCorrect = x.equal(label, "light_prediction")
	s.HeavyCorrect = x.equal(label, "heavy_prediction")
	if heavy, ok := column[*array.Int64](x, "heavy_prediction"); ok && label != nil {
		s.Labels, s.Heavy = label.Int64Values(), heavy.Int64Values()
	}
	s.Priors = []routing.Prior{{Name: x.pairs[keyPrior], Values: x.float32s("light_prior")}}
	s.Temperature = x.within(keyTemperature, 1, math.SmallestNonzeroFloat64, math.MaxFloat64)
	s.Cost = routing.Cost{Light: x.cost(keyLightCost), Heavy: x.cost(keyHeavyCost),
		Shared: x.cost(keySharedCost), Unit: x.pairs[keyCostUnit]}
	s.Images, s.Tuning = x.pairs[keyImages], x.pairs[keyTuning]
	for _, name := range columnNames(x.rec) {
		if prior, is := strings.CutPrefix(name, priorPrefix); is {
			s.Priors = append(s.Priors, routing.Prior{Name: prior, Values: x.float32s(name)})
		}
	}
	if x.rec.Schema().HasField(ensembleColumn) {
		s.EnsembleCorrect = x.equal(label, ensembleColumn)
		s.LightWeight = x.within(keyLightWeight, 0, 0, 1)
	}
	for i, prior := range s.Priors {
		if _, given := x.pairs[priceKeys[prior.Name]]; given {
			s.Priors[i].Cost = x.cost(priceKeys[prior.Name])
		}
	}
	if x.err != nil {
		return Samples{}, x.err
	}
	return s, nil
}

// SamplesAt is LentSamples with costs that were given, nil for those of the table. A table of
// another program names no prior and has the column's name for it.
func SamplesAt(paid *routing.Cost) func(arrow.Record) (Samples, error) {
	return func(rec arrow.Record) (Samples, error) {
		priced, err := pricedAt(paid, rec)
		if err != nil {
			return Samples{}, err
		}
		defer priced.Release()
		return LentSamples(priced)
	}
}

// pricedAt is a record of predictions whose metadata say what is read of them: see SamplesAt.
func pricedAt(paid *routing.Cost, rec arrow.Record) (arrow.Record, error) {
	pairs := ipcfile.Pairs(rec.Schema().Metadata())
	if _, given := pairs[keyPrior]; !given {
		pairs[keyPrior] = "light_prior"
	}
	if paid != nil {
		pairs[keyLightCost], pairs[keyHeavyCost] = formatFloat(paid.Light),
			formatFloat(paid.Heavy)
		pairs[keySharedCost], pairs[keyCostUnit] = formatFloat(paid.Shared), paid.Unit
	}
	if _, given := pairs[keyLightCost]; !given {
		return nil, fault.New(fault.Value, "nothing says what an image costs: give the "+
			"light expert's cost as a share of the heavy one's (--cost 0.25), or both "+
			"(--light-cost 4.2 --heavy-cost 17 --cost-unit ms)")
	}
	metadata := arrow.MetadataFrom(pairs)
	return array.NewRecord(arrow.NewSchema(rec.Schema().Fields(), &metadata), rec.Columns(),
		rec.NumRows()), nil
}

// SamplesFor is SamplesAt for test samples, whose costs are the router's where nothing says others.
func SamplesFor(router routing.Router, paid *routing.Cost) func(arrow.Record) (Samples, error) {
	return func(rec arrow.Record) (Samples, error) {
		return SamplesAt(costOf(router, paid, rec))(rec)
	}
}

// costOf is the cost of predictions: what was given, nil for their own, and the router's where
// they have none.
func costOf(router routing.Router, paid *routing.Cost, rec arrow.Record) *routing.Cost {
	if rec.Schema().Metadata().FindKey(keyLightCost) >= 0 || paid != nil {
		return paid
	}
	l := router.Ledger
	return &routing.Cost{Light: l.LightCost, Heavy: l.HeavyCost, Shared: l.SharedCost,
		Unit: l.CostUnit}
}

// equal returns for each row whether a column agrees with the labels.
func (x *extractor) equal(label *array.Int64, name string) routing.Bits {
	answers, ok := column[*array.Int64](x, name)
	if !ok {
		return routing.Bits{}
	}
	return routing.EqualBits(answers.Int64Values(), label.Int64Values())
}

// cost reads a cost of the metadata, from 0 and finite.
func (x *extractor) cost(key string) float64 {
	cost := x.given(key)
	if x.err == nil && !(cost >= 0 && !math.IsInf(cost, 1)) {
		x.err = fault.New(fault.Value,
			"metadata %s is %v, expected a finite number from 0; make the table with agflow", key,
			cost)
	}
	return cost
}

// within reads a number of the metadata between two others; it has a value where it was left out.
func (x *extractor) within(key string, otherwise, least, greatest float64) float64 {
	if _, given := x.pairs[key]; !given {
		return otherwise
	}
	number := x.given(key)
	if x.err == nil && !(number >= least && number <= greatest) {
		x.err = fault.New(fault.Value,
			"metadata %s is %v, expected a number from %v to %v; make the table with agflow", key,
			number, least, greatest)
	}
	return number
}

// given reads a number of the metadata.
func (x *extractor) given(key string) (number float64) {
	if x.err != nil {
		return 0
	}
	number, err := strconv.ParseFloat(x.pairs[key], 64)
	// hexadecimal ones are Go's alone
	if err != nil || strings.ContainsAny(x.pairs[key], "xX_") {
		x.err = fault.New(fault.Value, "metadata %s is %.40q, expected a number; make the table "+
			"with agflow", key, x.pairs[key])
	}
	return number
}

// LabelsFromRecord copies the column label out of a record batch of any kind.
func LabelsFromRecord(rec arrow.Record) ([]int64, error) {
	x := &extractor{rec: rec, kind: "labels"}
	labels := x.int64s("label")
	return labels, x.err
}

// PriorsToRecord has one row a sample: prediction int64 and, for each prior, a float32 column of
// its name. It is a result, not a file.
func PriorsToRecord(
	alloc memory.Allocator, predictions []int32, priors []routing.Prior,
) arrow.Record {
	classes := make([]int64, len(predictions))
	for i, class := range predictions {
		classes[i] = int64(class)
	}
	c := columns{alloc: alloc}
	defer c.release()
	c.int64s("prediction", classes)
	for _, prior := range priors {
		c.float32s(prior.Name, prior.Values)
	}
	return c.record("priors", map[string]string{})
}
