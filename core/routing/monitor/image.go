package monitor

import (
	"math"
	"time"

	"agflow/core/fault"
)

// Draw says whether an image was drawn for the audit, and with which probability.
type Draw struct {
	// the heavy expert answers the image, whether it escalates or not
	Audited bool    `json:"audited"`
	Share   float64 `json:"share"` // the probability with which it was drawn
	// the least probability with which any image would have been drawn then
	Least float64 `json:"least_share"`
}

// Everything is the draw of an audit of all images, for which both experts' answers are at hand.
var Everything = Draw{Audited: true, Share: 1, Least: 1}

// Image is what is known of one answered image. Its JSON is an audit record.
type Image struct {
	ID        string  `json:"id"`   // by which its label may come later; "" for none
	Time      string  `json:"time"` // of the answer, RFC 3339; "" for none
	Prior     float32 `json:"prior"`
	Escalated bool    `json:"escalated"`
	Draw
	Answer int  `json:"answer"` // the cascade's class
	Heavy  *int `json:"heavy"`  // the heavy expert's; nil where it was not asked
	Label  *int `json:"label"`  // nil where it is not known, or not yet
}

// maxID is the greatest length of an id, in bytes.
const maxID = 128

// validate refuses what would be counted wrongly. The threshold is the router's.
func (i *Image) validate(threshold float64) error {
	switch prior := float64(i.Prior); {
	case prior-prior != 0:
		return fault.New(fault.Nonfinite, "the prior of image %.40q is %v; priors are finite "+
			"numbers", i.ID, i.Prior)
	case i.Escalated != (prior < threshold):
		return fault.New(fault.Value, "image %.40q has the prior %v and escalated is %v, but the "+
			"router's threshold is %v: it was routed by another router", i.ID, i.Prior,
			i.Escalated, threshold)
	case len(i.ID) > maxID:
		return fault.New(fault.Value, "the id %.40q… has %d bytes, expected at most %d", i.ID,
			len(i.ID), maxID)
	case i.Answer < 0 || i.Heavy != nil && *i.Heavy < 0 || i.Label != nil && *i.Label < 0:
		return fault.New(fault.Value, "image %.40q has a negative class; classes are whole "+
			"numbers from 0", i.ID)
	}
	if !i.Audited {
		return nil
	}
	switch {
	case !(i.Share > 0 && i.Share <= 1) || !(i.Least > 0 && i.Least <= i.Share):
		return fault.New(fault.Value, "image %.40q was drawn with share %v and least share %v; "+
			"both are from above 0 to 1, and the least is no greater", i.ID, i.Share, i.Least)
	case i.Heavy == nil:
		return fault.New(fault.Value, "image %.40q is audited and has no answer of the heavy "+
			"expert", i.ID)
	}
	return nil
}

// validTime refuses a time that is not written as RFC 3339.
func validTime(text string) error {
	if _, err := time.Parse(time.RFC3339, text); text != "" && err != nil {
		return fault.New(fault.Value, "time is %.40q, expected one such as "+
			"2025-01-31T23:59:59.5Z", text)
	}
	return nil
}

// weight is the factor of the bets on an image: that of the likeliest images to be drawn is the
// smallest, so that the mean is that over all images. No factor is above 1.
func (i *Image) weight() float64 { return min(1, i.Least/i.Share) }

// difference is 1 where the heavy expert alone is right, -1 where the cascade alone is, else 0.
func difference(answer, heavy, label int) int8 {
	return truth(heavy == label) - truth(answer == label)
}

func truth(is bool) int8 {
	if is {
		return 1
	}
	return 0
}

// finite reports whether a number is one, from a least value on.
func finite(x, least float64) bool { return x >= least && !math.IsInf(x, 1) }
