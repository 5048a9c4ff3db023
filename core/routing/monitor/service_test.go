package monitor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/routing"
)

// pair simulates two experts and the light one's prior: losses get rarer with confidence.
type pair struct{ random *rand.Rand }

func (p pair) next() (prior float32, answer, heavy int) {
	u := p.random.Float64()
	if p.random.Float64() < 0.3*math.Exp(-12*u) {
		answer = 1
	}
	if p.random.Float64() < 0.03 {
		heavy = 2
	}
	return float32(u), answer, heavy
}

// calibrated draws calibration images and calibrates a router and its monitor on them.
func (p pair) calibrated(t *testing.T, n int, o Options) (routing.Router, *Monitor) {
	t.Helper()
	s := routing.Samples{
		LightCorrect: routing.NewBits(n), HeavyCorrect: routing.NewBits(n),
		Cost: routing.Cost{Light: 1, Heavy: 5, Unit: routing.MACs}, Temperature: 1,
	}
	priors := make([]float32, n)
	light, heavies := make([]int64, n), make([]int64, n)
	for i := range n {
		prior, answer, heavy := p.next()
		priors[i], light[i], heavies[i] = prior, int64(answer), int64(heavy)
		s.LightCorrect.Set(i, answer == 0)
		s.HeavyCorrect.Set(i, heavy == 0)
	}
	s.Priors = []routing.Prior{{Name: routing.MaxProbability, Values: priors}}
	tolerance := 0.01
	router, err := routing.NewRouter(s, routing.Request{Tolerance: &tolerance, Confidence: 0.95})
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCalibration(router, priors, light, heavies, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(router, c, o)
	if err != nil {
		t.Fatal(err)
	}
	return router, m
}

// The same images choose the threshold and say how many escalate and disagree at it. The levels
// hold all the same, where nothing changes in service.
func TestLevelsHoldForChosenThresholds(t *testing.T) {
	lives, images := 15, 3000
	if !testing.Short() {
		lives, images = 400, 50_000
	}
	alarms, passed := map[string]int{}, 0
	o := DefaultOptions()
	o.Share, o.RaisedShare = 0.1, 0.2
	for life := range lives {
		o.Seed = uint64(life)
		p := pair{rand.New(rand.NewPCG(uint64(life), 31))}
		router, m := p.calibrated(t, calibrationImages, o)
		passed += int(truth(router.Verdict == routing.Pass))
		for range images {
			prior, answer, heavy := p.next()
			image := Image{Prior: prior, Escalated: router.Escalates(prior), Answer: answer,
				Heavy: &heavy, Label: &classes[0]}
			if image.Escalated {
				image.Answer = heavy
			}
			image.Draw = m.Audit(prior, image.Escalated)
			if err := m.Observe(image); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range m.watches() {
			alarms[w.name] += int(truth(w.alarm != nil))
		}
	}
	t.Logf("%d lives of %d images, %d thresholds passed: %v", lives, images, passed, alarms)
	requireLevel(t, alarms, lives)
	if passed < lives*9/10 {
		t.Errorf("only %d of %d thresholds passed", passed, lives)
	}
}

// Labels come for half of the audited images, late and out of their order: the level holds, and a
// drift is found.
func TestHalfOfTheLabelsComeLate(t *testing.T) {
	lives, alarms := 15, map[string]int{}
	for life := range 2 * lives {
		drifts := life >= lives
		s, o := newStream(uint64(life), 0.8), DefaultOptions()
		o.Seed = uint64(life)
		m := s.life(t, atTheTolerance, calibrationImages, o)
		late := map[int]string{} // by the image after which the label comes
		for i := range 20_000 {
			r := atTheTolerance
			if drifts && i > 2000 {
				r.lost += 0.05
			}
			prior, d := s.next(r)
			id := fmt.Sprint(i)
			image := Image{ID: id, Prior: prior, Escalated: prior < escalating,
				Answer: answers[d][0], Heavy: &classes[answers[d][1]]}
			image.Draw = m.Audit(prior, image.Escalated)
			if err := m.Observe(image); err != nil {
				t.Fatal(err)
			}
			if image.Audited && s.random.IntN(2) == 0 {
				late[i+1+s.random.IntN(500)] = id
			}
			if id, comes := late[i]; comes {
				if err := m.Label(id, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		switch {
		case drifts && m.accuracy.alarm == nil:
			alarms["not found"]++
		case !drifts && m.accuracy.alarm != nil:
			alarms[AccuracyWatch]++
		}
	}
	t.Logf("%v of %d lives", alarms, lives)
	requireLevel(t, alarms, lives)
}
