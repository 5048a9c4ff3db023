package arrowfile

import (
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
)

// checkFrontier refuses a table of kind frontier that lacks a column. Python writes them, one row a judged candidate of a
// cascade's design: stage, image_size, answers utf8; branches, shared_blocks int64; width, light, light_accuracy,
// threshold, escalation, accuracy, charged, images_per_second, oracle float64.
func checkFrontier(rec arrow.Record) error {
	x := extract(rec, KindFrontier)
	for _, name := range []string{"stage", "image_size", "answers"} {
		x.texts(name)
	}
	for _, name := range []string{"branches", "shared_blocks"} {
		x.int64s(name)
	}
	for _, name := range []string{"width", "light", "light_accuracy", "threshold", "escalation", "accuracy", "charged", "images_per_second", "oracle"} {
		x.float64s(name)
	}
	if x.err == nil && rec.NumRows() == 0 {
		return fault.New(fault.Empty, "the frontier has no row, expected one for each candidate that was judged")
	}
	return x.err
}
