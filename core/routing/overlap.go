package routing

import (
	"strings"

	"agflow/core/fault"
)

// checkHeldOut refuses samples of images that also tuned an expert, as far as sketches of both sets
// show it: texts of the smallest 256 hashes of each set, separated by spaces (Broder 1997). A hash
// in both is an image in both. An overlap of a share s of the smaller of two sets of n and m images
// is missed with a probability of about exp(-256·s·min(n, m)/max(n, m)); images that were changed,
// if only by another crop, are always missed, and so are images that were not recorded.
func checkHeldOut(images, tuning string) error {
	known := map[string]bool{}
	for hash := range strings.FieldsSeq(tuning) {
		known[hash] = true
	}
	shared, of := 0, 0
	for hash := range strings.FieldsSeq(images) {
		of++
		if known[hash] {
			shared++
		}
	}
	if shared > 0 {
		return fault.New(fault.Value,
			"%d of %d images in the sketch also tuned an expert, "+
				"and their errors say nothing of new images; "+
				"predict on images that served neither expert",
			shared, of)
	}
	return nil
}
