package tables

import (
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// DecisionsToRecord has one row an image: index, prediction int64; prior float32; escalate bool.
// Metadata: agflow.prior names the prior and agflow.threshold is what it was compared with. Where
// the predictions are the cascade's answers, also for images that escalate, agflow.answers says
// whose these are: heavy or ensemble; without it all are the light expert's.
func DecisionsToRecord(
	alloc memory.Allocator, d routing.Decisions, router routing.Router, answered bool,
) arrow.Record {
	index := make([]int64, len(d.Prediction))
	for i := range index {
		index[i] = int64(i)
	}
	c := columns{alloc: alloc}
	defer c.release()
	c.int64s("index", index)
	c.int64s("prediction", d.Prediction)
	c.float32s("prior", d.Prior)
	c.bools("escalate", d.Escalate)
	pairs := map[string]string{keyPrior: router.Prior,
		keyThreshold: formatFloat(router.Threshold.Threshold)}
	if answered {
		pairs[keyAnswers] = router.Answers
	}
	return c.record(KindDecisions, pairs)
}

// DecisionsFromRecord copies the decisions out of a record batch.
func DecisionsFromRecord(rec arrow.Record) (routing.Decisions, error) {
	x := extract(rec, KindDecisions)
	defer x.release()
	d := routing.Decisions{Prediction: x.int64s("prediction"), Prior: x.float32s("prior"),
		Escalate: x.bools("escalate")}
	return d, x.err
}
