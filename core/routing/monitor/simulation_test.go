package monitor

import (
	"math/rand/v2"
	"testing"

	"agflow/core/routing"
)

// rates has the shares of all images that the cascade alone gets wrong, and alone gets right.
type rates struct{ lost, gained float64 }

// stream simulates images of a uniform prior of which a fifth escalates. Of the images on which
// the experts' correctness differs, a share is near: among the fifth of those that stay that is
// nearest to the threshold. The others lie evenly among the rest.
type stream struct {
	random *rand.Rand
	near   float64
}

const escalating = 0.2

// blind is the share that is near where losses do not depend on the prior.
const blind = nearest

func (s *stream) next(r rates) (prior float32, d int8) {
	p := s.random.Float64()
	if p < escalating {
		return float32(p), 0
	}
	stays, share, part := (p-escalating)/(1-escalating), s.near, nearest
	if stays >= nearest {
		share, part = 1-s.near, 1-nearest
	}
	scale := share / part / (1 - escalating)
	switch u := s.random.Float64(); {
	case u < r.lost*scale:
		d = 1
	case u < (r.lost+r.gained)*scale:
		d = -1
	}
	return float32(p), d
}

// answers are classes of the cascade and the heavy expert that differ so, for a label of 0.
var answers = map[int8][2]int{-1: {0, 1}, 0: {0, 0}, 1: {1, 0}}

var classes = [2]int{0, 1}

// feed lets a monitor answer one image.
func (s *stream) feed(m *Monitor, r rates, labelled bool) {
	prior, d := s.next(r)
	image := Image{Prior: prior, Escalated: prior < escalating}
	image.Draw = m.Audit(prior, image.Escalated)
	if image.Audited {
		image.Answer, image.Heavy = answers[d][0], &classes[answers[d][1]]
		if labelled {
			image.Label = &classes[0]
		}
	}
	if err := m.Observe(image); err != nil {
		panic(err)
	}
}

// life returns a monitor that was calibrated on images of its own.
func (s *stream) life(t testing.TB, r rates, images int, o Options) *Monitor {
	c := Calibration{}
	k := int64(0)
	for range images {
		prior, d := s.next(r)
		c.Priors = append(c.Priors, prior)
		c.Disagreements += int64(truth(d != 0))
		k += int64(truth(prior < escalating))
	}
	m, err := New(simulatedRouter(t, int64(images), k), &c, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// failer is a test, or a property of one.
type failer interface{ Fatal(values ...any) }

func simulatedRouter(t failer, n, escalated int64) routing.Router {
	ledger, err := routing.NewLedger(routing.Cost{Light: 1, Heavy: 5, Unit: routing.MACs}, n,
		escalated)
	if err != nil {
		t.Fatal(err)
	}
	return routing.Router{
		Format: routing.RouterFormat, Prior: routing.MaxProbability, Temperature: 1,
		Answers: routing.HeavyAnswers, Ledger: ledger,
		Threshold: routing.Threshold{
			Threshold: escalating, Verdict: routing.Pass, Target: routing.AccuracyTarget,
			Limit: 0.005, Confidence: 0.95, Samples: n, Escalation: ledger.Escalation,
		},
	}
}
