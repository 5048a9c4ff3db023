package tables

import (
	"agflow/bridge/ipcfile"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
)

// Answers are the classes that both experts, and their ensemble, gave to the images of a table of
// predictions, in its order, with the prior that a router reads.
type Answers struct {
	Prior        []float32
	Label        []int64
	Light, Heavy []int64
	Ensemble     []int64 // nil where it was not recorded
}

// ReadAnswers reads what a router is told by the predictions of a file.
//
// Errors: those of [ipcfile.Use] and of [routing.Router.Outcomes].
func ReadAnswers(path string, router routing.Router) (a Answers, err error) {
	err = ipcfile.Use(path, KindPredictions, func(rec arrow.Record) error {
		priced, err := pricedAt(costOf(router, nil, rec), rec)
		if err != nil {
			return err
		}
		defer priced.Release()
		samples, err := LentSamples(priced)
		if err != nil {
			return err
		}
		outcomes, err := router.Outcomes(samples.Samples)
		if err != nil {
			return err
		}
		x := extract(priced, KindPredictions)
		defer x.release()
		a.Prior = append(a.Prior, outcomes.Prior...)
		a.Label, a.Light = x.int64s("label"), x.int64s("light_prediction")
		a.Heavy = x.int64s("heavy_prediction")
		if priced.Schema().HasField(ensembleColumn) {
			a.Ensemble = x.int64s(ensembleColumn)
		}
		return x.err
	})
	return a, err
}
