package monitor

import (
	"encoding/base64"
	"math/rand/v2"
	"slices"

	"agflow/core/fault"
	"agflow/core/routing"
	"agflow/core/strictjson"
)

// StateFormat is the format number of a state, MaxState its greatest size in bytes.
const (
	StateFormat = 1
	MaxState    = 8 << 20
)

// mostImages bounds every count of a state, so that no sum overflows.
const mostImages = 1 << 48

// state is the JSON of a monitor, with a checksum.
type state struct {
	Format         int           `json:"format"`
	Subject        subject       `json:"subject"`
	Generator      string        `json:"generator"` // math/rand/v2's PCG in base64
	Images         int64         `json:"images"`
	Thinned        int64         `json:"thinned"`
	Escalated      int64         `json:"escalated"`
	Audited        int64         `json:"audited"`
	Labelled       int64         `json:"labelled"`
	BelowThreshold int64         `json:"below_threshold"`
	Bins           []int         `json:"bins"` // those with priors
	Counts         []int64       `json:"counts"`
	Recent         blocks        `json:"recent"`
	Now            string        `json:"now"`
	Watches        [4]watchState `json:"watches"`
	Losing         float64       `json:"losing"`
	Differing      float64       `json:"differing"`
	Losses         windowState   `json:"losses"`
	Disagreements  windowState   `json:"disagreements"`
	Awaited        awaitedState  `json:"awaited"`
}

type watchState struct {
	Name    string      `json:"name"`
	Numbers int64       `json:"numbers"`
	Capital [][]float64 `json:"capital"` // by side and bet
	Alarm   *Alarm      `json:"alarm"`
}

type windowState struct {
	Weights []float64 `json:"weights"`
	Values  []int     `json:"values"`
}

type awaitedState struct {
	IDs     []string  `json:"ids"`
	Answers []int     `json:"answers"`
	Heavy   []int     `json:"heavy"`
	Weights []float64 `json:"weights"`
	Dropped int64     `json:"dropped"`
}

// State returns all that a monitor knows, for [Restore].
func (m *Monitor) State() ([]byte, error) {
	m.lock.Lock()
	s, err := m.state()
	m.lock.Unlock()
	if err != nil {
		return nil, err
	}
	return strictjson.Seal(s)
}

func (m *Monitor) state() (s state, err error) {
	generator, err := m.source.MarshalBinary()
	if err != nil {
		return s, err
	}
	s = state{
		Format: StateFormat, Subject: m.subject,
		Generator: base64.StdEncoding.EncodeToString(generator),
		Images:    m.images, Escalated: m.escalated, Audited: m.audited, Labelled: m.labelled,
		BelowThreshold: m.belowThreshold, Bins: []int{}, Counts: []int64{}, Recent: m.recent,
		Thinned: m.thinned, Now: m.now,
		Losing: m.losing.value, Differing: m.differing.value, Losses: m.losses.state(),
		Disagreements: m.disagreements.state(), Awaited: m.awaited.state(),
	}
	for bin, n := range m.ranks.count {
		if n > 0 {
			s.Bins, s.Counts = append(s.Bins, bin), append(s.Counts, n)
		}
	}
	for i, w := range m.watches() {
		s.Watches[i] = watchState{Name: w.name, Numbers: w.n, Alarm: w.alarm}
		for _, side := range w.sides {
			s.Watches[i].Capital = append(s.Watches[i].Capital, slices.Clone(side.capital))
		}
	}
	return s, nil
}

func (w *window) state() windowState {
	ordered := w.inOrder()
	s := windowState{ordered.weights, []int{}}
	for _, v := range ordered.values {
		s.Values = append(s.Values, int(v))
	}
	return s
}

func (a *awaited) state() awaitedState {
	s := awaitedState{[]string{}, []int{}, []int{}, []float64{}, a.dropped}
	for _, image := range a.inOrder() {
		s.IDs, s.Answers = append(s.IDs, image.id), append(s.Answers, image.answer)
		s.Heavy, s.Weights = append(s.Heavy, image.heavy), append(s.Weights, image.weight)
	}
	return s
}

// Restore continues the monitor whose state this is: what it reports is bit for bit what it would
// have reported had it never ended. The shares may be others than before, the level may not.
//
// Errors: file (damaged, of another router, calibration or level, values out of their range), and
// those of [New].
func Restore(
	content []byte, router routing.Router, c *Calibration, o Options,
) (*Monitor, error) {
	m, err := New(router, c, o)
	if err != nil {
		return nil, err
	}
	s, err := parseState(content)
	if err == nil {
		err = s.belongsTo(m.subject)
	}
	if err == nil {
		err = m.resume(s)
	}
	if err != nil {
		return nil, fault.New(fault.File, "the state of the monitor can't be read: %s",
			fault.Sentence(err))
	}
	return m, nil
}

func parseState(content []byte) (s state, err error) {
	if len(content) > MaxState {
		return s, fault.New(fault.File, "it has %d bytes, expected at most %d", len(content),
			MaxState)
	}
	format, err := strictjson.Format(content)
	if err != nil {
		return s, err
	}
	if format != StateFormat {
		return s, fault.New(fault.File, "its format is %d, this version reads %d", format,
			StateFormat)
	}
	if content, err = strictjson.Open(content); err == nil {
		err = strictjson.Whole(content, &s)
	}
	return s, err
}

// belongsTo refuses the state of another router, by name.
func (s *state) belongsTo(now subject) error {
	switch found := s.Subject; {
	case found.Router != now.Router:
		return fault.New(fault.File, "it is of the router %.12s, and this router is %.12s (the "+
			"first digits of SHA-256)", found.Router, now.Router)
	case found.Calibration != now.Calibration:
		return fault.New(fault.File, "it is of the calibration predictions %.12s, and %.12s were "+
			"given (the first digits of SHA-256, none for none)", found.Calibration,
			now.Calibration)
	case found.Level != now.Level:
		return fault.New(fault.File, "it is of watches at level %v, and level %v was asked for",
			found.Level, now.Level)
	}
	return nil
}

// resume takes a state's values over.
func (m *Monitor) resume(s state) error {
	generator, err := base64.StdEncoding.DecodeString(s.Generator)
	if err == nil {
		err = m.source.UnmarshalBinary(generator)
	}
	if err != nil {
		return fault.New(fault.File, "its generator is %.40q, expected a PCG", s.Generator)
	}
	m.random = rand.New(m.source)
	if err := m.resumeCounts(s); err != nil {
		return err
	}
	for i, w := range m.watches() {
		if err := w.resume(s.Watches[i], m.images); err != nil {
			return err
		}
	}
	if !finite(s.Losing, 0) || !finite(s.Differing, 0) {
		return fault.New(fault.File, "its trends are %v and %v, expected numbers from 0", s.Losing,
			s.Differing)
	}
	m.losing.value, m.differing.value = s.Losing, s.Differing
	if m.losses, err = s.Losses.window(-1); err != nil {
		return err
	}
	if m.disagreements, err = s.Disagreements.window(0); err != nil {
		return err
	}
	m.awaited, err = s.Awaited.awaited()
	return err
}

func (m *Monitor) resumeCounts(s state) error {
	counts, total := map[int]int64{}, int64(0)
	if len(s.Bins) != len(s.Counts) {
		return fault.New(fault.File, "it has %d bins and %d counts, expected one for each",
			len(s.Bins), len(s.Counts))
	}
	for i, bin := range s.Bins {
		n := s.Counts[i]
		if bin < 0 || bin >= binCount || n < 1 || counts[bin] > 0 || n > mostImages {
			return fault.New(fault.File, "its bin %d has %d priors, which can't be", bin, n)
		}
		counts[bin] = n
		total += n
	}
	calibrated := m.ranks.total
	r := s.Recent
	switch {
	case s.Images < 0 || s.Thinned < 0 || total != s.Images-s.Thinned+calibrated:
		return fault.New(fault.File, "it has %d priors of %d images in service and %d of the "+
			"calibration", total, s.Images-s.Thinned, calibrated)
	case s.Escalated < 0 || s.Escalated > s.Images-s.Thinned ||
		s.Audited < 0 || s.Audited > s.Images ||
		s.Labelled < 0 || s.Labelled > s.Images ||
		s.BelowThreshold != m.belowThreshold+s.Escalated:
		return fault.New(fault.File, "of %d images %d escalate, %d were audited and %d labelled, "+
			"and %d priors are below the threshold, which can't be", s.Images, s.Escalated,
			s.Audited, s.Labelled, s.BelowThreshold)
	case r.Before < 0 || r.Before > r.BeforeOf || r.BeforeOf > blockSize || r.Current < 0 ||
		r.Current > r.CurrentOf || r.CurrentOf > blockSize:
		return fault.New(fault.File, "its recent counts are %v, which can't be", r)
	}
	m.ranks.fill(counts)
	m.images, m.escalated, m.audited, m.labelled = s.Images, s.Escalated, s.Audited, s.Labelled
	m.belowThreshold, m.recent = s.BelowThreshold, s.Recent
	m.thinned, m.now = s.Thinned, s.Now
	return nil
}

func (w *watch) resume(s watchState, images int64) error {
	if s.Name != w.name || s.Numbers < 0 || s.Numbers > images || len(s.Capital) != len(w.sides) {
		return fault.New(fault.File, "its watch %.40q has %d numbers of %d images on %d sides, "+
			"expected %s with %d sides", s.Name, s.Numbers, images, len(s.Capital), w.name,
			len(w.sides))
	}
	if s.Alarm != nil && (s.Alarm.Image < 1 || s.Alarm.Image > images ||
		!finite(s.Alarm.Evidence, w.needs)) {
		return fault.New(fault.File, "its alarm of %s is %v, which can't be", w.name, *s.Alarm)
	}
	w.n, w.cash, w.alarm = s.Numbers, cashAfter(s.Numbers), s.Alarm
	w.evidence = w.cash
	for i, capital := range s.Capital {
		if len(capital) != len(w.sides[i].bets) {
			return fault.New(fault.File, "%s has the capital of %d bets, expected %d", w.name,
				len(capital), len(w.sides[i].bets))
		}
		for k, c := range capital {
			if !(c >= 0 && c <= mostEvidence) {
				return fault.New(fault.File, "a capital of %s is %v, expected a number from 0",
					w.name, c)
			}
			w.sides[i].capital[k] = c
			w.evidence += c
		}
	}
	return nil
}

func (s windowState) window(least int) (*window, error) {
	if len(s.Weights) != len(s.Values) || len(s.Values) > windowSize {
		return nil, fault.New(fault.File, "a window has %d weights and %d values, expected as "+
			"many of each and at most %d", len(s.Weights), len(s.Values), windowSize)
	}
	w := &window{}
	for i, v := range s.Values {
		if !(s.Weights[i] > 0 && s.Weights[i] <= 1) || v < least || v > 1 {
			return nil, fault.New(fault.File, "a window has the value %d with weight %v", v,
				s.Weights[i])
		}
		w.add(s.Weights[i], int8(v))
	}
	return w, nil
}

func (s awaitedState) awaited() (*awaited, error) {
	a := newAwaited()
	if n := len(s.IDs); n > mostAwaited || n != len(s.Answers) || n != len(s.Heavy) ||
		n != len(s.Weights) || s.Dropped < 0 {
		return nil, fault.New(fault.File, "it awaits the labels of %d images with %d answers, %d "+
			"of the heavy expert, and %d weights", n, len(s.Answers), len(s.Heavy), len(s.Weights))
	}
	for i, id := range s.IDs {
		_, twice := a.byID[id]
		if twice || id == "" || len(id) > maxID || s.Answers[i] < 0 || s.Heavy[i] < 0 ||
			!(s.Weights[i] > 0 && s.Weights[i] <= 1) {
			return nil, fault.New(fault.File, "it awaits the label of %.40q, which can't be", id)
		}
		a.add(waiting{id, s.Answers[i], s.Heavy[i], s.Weights[i]})
	}
	a.dropped = s.Dropped
	return a, nil
}
