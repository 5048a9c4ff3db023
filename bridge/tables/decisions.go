package tables

import (
	"agflow/bridge/ipcfile"
	"agflow/core/routing"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// decisionsToRecord has one row an image, of which the first has the given index: index, prediction
// int64; prior float32; escalate bool. Metadata: agflow.prior names the prior and agflow.threshold
// is what it was compared with. Where the predictions are the cascade's answers, also for images
// that escalate, agflow.answers says whose these are: heavy or ensemble; without it all are the
// light expert's.
func decisionsToRecord(
	alloc memory.Allocator, d routing.Decisions, first int, router routing.Router, answered bool,
) arrow.Record {
	index := make([]int64, len(d.Prediction))
	for i := range index {
		index[i] = int64(first + i)
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

// decisionsInPart is the number of images whose decisions are in memory at a time.
const decisionsInPart = 1 << 17

// Decide writes the decisions of a router for the light expert's logits of a file, with the
// cascade's answers where the heavy expert's are in another ("" for none), to a file, and returns
// how many images there are and how many escalate. A part of the images is in memory at a time.
//
// Errors: those of [ipcfile.Use] and of [routing.Router.InParts].
func Decide(router routing.Router, light, heavy, path string) (images, escalated int, err error) {
	_, err = ipcfile.WriteParts(path, func(p *ipcfile.Parts) error {
		return withLogits(light, heavy, func(of tensor.View, ofHeavy *tensor.View) error {
			for d, err := range router.InParts(of, ofHeavy, decisionsInPart) {
				if err != nil {
					return err
				}
				rec := decisionsToRecord(memory.DefaultAllocator, d, images, router, heavy != "")
				if images == 0 {
					err = p.Begin(rec.Schema(), of.Rows())
				}
				if err == nil {
					err = p.Put(rec)
				}
				rec.Release()
				if err != nil {
					return err
				}
				images += len(d.Prediction)
				escalated += d.Escalated()
			}
			return nil
		})
	})
	return images, escalated, err
}

// withLogits lends the logits of one file, or of two, to a step.
func withLogits(
	light, heavy string, step func(light tensor.View, heavy *tensor.View) error,
) error {
	return Lend(light, KindLogits, LogitsFromRecord, func(l tensor.View) error {
		if heavy == "" {
			return step(l, nil)
		}
		return Lend(heavy, KindLogits, LogitsFromRecord, func(h tensor.View) error {
			return step(l, &h)
		})
	})
}

// DecisionsFromRecord copies the decisions out of a record batch.
func DecisionsFromRecord(rec arrow.Record) (routing.Decisions, error) {
	x := extract(rec, KindDecisions)
	defer x.release()
	d := routing.Decisions{Prediction: x.int64s("prediction"), Prior: x.float32s("prior"),
		Escalate: x.bools("escalate")}
	return d, x.err
}
