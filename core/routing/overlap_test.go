package routing

import (
	"strings"
	"testing"

	"agflow/core/fault"
)

func TestImagesThatTunedAreRefused(t *testing.T) {
	for _, c := range []struct{ images, tuning string }{
		{"", ""}, {"01 02", ""}, {"", "01"}, {"01 02", "03 04"}, {"01", "0101"},
	} {
		if err := checkHeldOut(c.images, c.tuning); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	s := pairOf(1000)
	s.Images, s.Tuning = "01 02 03", "00 03 09 02"
	_, err := NewRouter(s, Request{Tolerance: number(0.05), Confidence: 0.9})
	requireCode(t, err, fault.Value)
	if !strings.Contains(err.Error(), "2 of 3 images in the sketch also tuned an expert") {
		t.Error(err)
	}
}
