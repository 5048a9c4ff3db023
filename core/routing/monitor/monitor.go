// Package monitor watches the promise of a calibrated cascade in service.
//
// An audit draws a few images that the heavy expert answers besides; their labels may come later,
// or never. Four watches bet against four null hypotheses: that the cascade loses no more accuracy
// than was promised, that it disagrees with the heavy expert no more than on the calibration
// images, that as many images escalate, and that the priors are distributed alike. The evidence of
// a watch may be looked at after every image: where its null holds, it raises an alarm in at most
// a share of lives that is its level, ever (Ville 1939).
package monitor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"sync"

	"agflow/core/defaults"
	"agflow/core/fault"
	"agflow/core/routing"
)

// Options has the parameters of [New].
type Options struct {
	Level       float64 // the share of lives in which one watch may raise a false alarm
	Share       float64 // of the images that stay, how many are audited while all is well; 0: none
	RaisedShare float64 // the same while recent audits look worse than they should
	Seed        uint64  // of the audit's draws and of the ties between ranks
}

// DefaultOptions returns the options of core/defaults.
func DefaultOptions() Options {
	const step = "monitor"
	return Options{
		Level: defaults.Of[float64](step, "level"), Share: defaults.Of[float64](step, "share"),
		RaisedShare: defaults.Of[float64](step, "raised_share"),
		Seed:        defaults.Of[uint64]("common", "seed"),
	}
}

func (o Options) validate() error {
	switch {
	case !(o.Level > 0 && o.Level < 1):
		return fault.New(fault.Value, "the level of the watches is %v, expected a number between "+
			"0 and 1, such as 0.05", o.Level)
	case !(o.Share >= 0 && o.Share <= 1):
		return fault.New(fault.Value, "the audit share is %v, expected a number from 0, no audit, "+
			"to 1", o.Share)
	case !(o.RaisedShare >= o.Share && o.RaisedShare <= 1):
		return fault.New(fault.Value, "the raised audit share is %v, expected a number from the "+
			"share %v to 1", o.RaisedShare, o.Share)
	}
	return nil
}

// Monitor watches one cascade. It may be used from several goroutines; its memory is constant.
type Monitor struct {
	lock    sync.Mutex
	router  routing.Router
	options Options
	subject subject

	source *rand.PCG
	random *rand.Rand

	calmShares, raisedShares shares

	images    int64 // answered
	thinned   int64 // of these, only the audit is counted
	escalated int64 // of the others
	audited   int64 // sent to the heavy expert for the audit alone
	labelled  int64 // audited images whose label is known

	ranks          *ranks // of the calibration's priors and of all since
	belowThreshold int64  // of these, how many escalate
	recent         blocks

	accuracy, agreement, escalation, prior *watch
	losing, differing                      trend
	losses, disagreements                  *window
	now                                    string // the time of the last image or label
	awaited                                *awaited
}

// subject names what a state belongs to.
type subject struct {
	Router      string  `json:"router"` // SHA-256 of router.json
	Calibration string  `json:"calibration"`
	Level       float64 `json:"level"`
}

// New begins to watch a router with E = 1. The calibration may be nil: then the agreement can't be
// watched, and priors are ranked among those in service alone.
//
// Errors: value (options, a router that is not valid), nonfinite (priors).
func New(router routing.Router, c *Calibration, o Options) (*Monitor, error) {
	if err := router.Validate(); err != nil {
		return nil, err
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	content, err := router.Encode()
	if err != nil {
		return nil, err
	}
	m := &Monitor{
		router: router, options: o, subject: subject{digest(content), "", o.Level},
		source:     rand.NewPCG(o.Seed, 0x6167666c6f77),
		calmShares: sharesOf(o.Share), raisedShares: sharesOf(o.RaisedShare),
		ranks: &ranks{}, losses: &window{}, disagreements: &window{}, awaited: newAwaited(),
	}
	m.random = rand.New(m.source)
	m.differing, m.losing = trend{bet: trendBet, value: 1}, trend{bet: trendBet, value: 1}
	if c != nil {
		if err := m.learn(c); err != nil {
			return nil, err
		}
	}
	m.accuracy, m.agreement = newAccuracy(router, o), newAgreement(router, c, o)
	m.escalation, m.prior = newEscalation(router, o), newPrior(c, o)
	return m, nil
}

// learn ranks the calibration's priors.
func (m *Monitor) learn(c *Calibration) error {
	for i, prior := range c.Priors {
		if prior-prior != 0 {
			return fault.New(fault.Nonfinite, "the prior of calibration image %d is %v; priors "+
				"are finite numbers", i, prior)
		}
		m.ranks.add(binOf(prior))
		m.belowThreshold += int64(truth(m.router.Escalates(prior)))
	}
	content, err := json.Marshal(c)
	if err == nil {
		m.subject.Calibration = digest(content)
	}
	return err
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Observe counts an answered image. Of an audited image whose label is not known, the label is
// awaited, by its id.
//
// Errors: value, nonfinite (an image of another router, or one that can't be; it is not counted).
func (m *Monitor) Observe(image Image) error {
	if err := image.validate(m.router.Threshold.Threshold); err != nil {
		return err
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	m.images++
	m.now = image.Time
	m.watchStream(image)
	if image.Audited {
		m.audit(image)
	}
	return nil
}

// ObserveAudited counts an image of a stream of which only the audited ones are known. Whether
// images escalate, and their priors, are watched on a sample of them that stands for all: one is
// drawn with the inverse of the share that it was audited with.
//
// Errors: those of Observe.
func (m *Monitor) ObserveAudited(image Image) error {
	if err := image.validate(m.router.Threshold.Threshold); err != nil {
		return err
	}
	if !image.Audited {
		return fault.New(fault.Value, "image %.40q is not audited", image.ID)
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	m.images++
	m.now = image.Time
	if m.random.Float64() < image.weight() {
		m.watchStream(image)
	} else {
		m.thinned++
	}
	m.audit(image)
	return nil
}

// watchStream counts whether an image escalates, and its prior.
func (m *Monitor) watchStream(image Image) {
	bin := binOf(image.Prior)
	rank := m.ranks.smoothed(bin, m.random.Float64())
	m.ranks.add(bin)
	escalates := 0.0
	if image.Escalated {
		escalates = 1
		m.escalated++
		m.belowThreshold++
	}
	m.recent.add(image.Escalated)
	m.bet(m.escalation, escalates-m.escalation.upper, m.escalation.lower-escalates)
	fromMiddle := math.Abs(2*rank-1) - 0.5
	m.bet(m.prior, rank-0.5, 0.5-rank, fromMiddle, -fromMiddle)
}

// bet lets a watch bet on one number a side, and notes its first alarm.
func (m *Monitor) bet(w *watch, numbers ...float64) {
	evidence := w.process.add(numbers...)
	if evidence >= w.needs && w.alarm == nil {
		w.alarm = &Alarm{m.images, m.now, evidence}
	}
}

// audit counts an image that both experts have answered.
func (m *Monitor) audit(image Image) {
	if !image.Escalated {
		m.audited++
	}
	differs := truth(image.Answer != *image.Heavy)
	weight := image.weight()
	m.disagreements.add(weight, differs)
	if m.agreement.off == "" {
		x := weight * (float64(differs) - m.agreement.upper)
		m.differing.add(x)
		m.bet(m.agreement, x)
	}
	switch {
	case image.Label != nil:
		m.label(waiting{image.ID, image.Answer, *image.Heavy, weight}, *image.Label)
	case image.ID != "":
		m.awaited.add(waiting{image.ID, image.Answer, *image.Heavy, weight})
	}
}

// label counts an audited image whose label is known.
func (m *Monitor) label(image waiting, class int) {
	m.labelled++
	d := difference(image.answer, image.heavy, class)
	m.losses.add(image.weight, d)
	if m.accuracy.off == "" {
		x := image.weight * (float64(d) - m.accuracy.upper)
		m.losing.add(x)
		m.bet(m.accuracy, x)
	}
}

// ErrUnknownID is the error of a label that no image awaits: it was not audited, has its label, or
// waited so long that others took its place.
var ErrUnknownID = fault.New(fault.Value, "no audited image with this id awaits its label: it "+
	"was not audited, has its label already, or more than %d others came since", mostAwaited)

// Label gives an audited image the class that it really has. When labels come, and for which
// images, must not depend on who was right.
//
// Errors: value (a class below 0; ErrUnknownID).
func (m *Monitor) Label(id string, class int) error {
	if class < 0 {
		return fault.New(fault.Value, "the label of image %.40q is %d, expected a class from 0", id,
			class)
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	image, found := m.awaited.take(id)
	if !found {
		return ErrUnknownID
	}
	m.label(image, class)
	return nil
}
