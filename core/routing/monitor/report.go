package monitor

import (
	"fmt"
	"math"

	"agflow/core/routing"
)

// Report is what a monitor says at one time.
type Report struct {
	Promise  string `json:"promise"`  // what the router guarantees, or that it guarantees nothing
	Images   int64  `json:"images"`   // answered
	Audited  int64  `json:"audited"`  // sent to the heavy expert for the audit alone
	Labelled int64  `json:"labelled"` // audited images whose label is known
	Awaited  int    `json:"awaited"`  // audited images whose label may come
	Dropped  int64  `json:"dropped"`  // of these, how many others took the place of
	// the mean over the images that stay with which they are audited now, and whether recent audits
	// raised it
	Share  float64 `json:"share"`
	Raised bool    `json:"raised"`
	// the accuracy that the cascade loses against the heavy expert, and the share of images on
	// which their answers differ, over the last audits; null where there are none
	Loss         *Mean       `json:"loss"`
	Disagreement *Mean       `json:"disagreement"`
	Escalation   Escalations `json:"escalation"`
	Watches      []Watch     `json:"watches"`
	// the sentence of the alarm on what was promised, "" for none
	Alarm string `json:"alarm"`
	// SHA-256 of router.json, that only reports of one router be averaged
	Router string `json:"router"`
}

// Escalations has the share of images that escalate, calibrated and in service.
type Escalations struct {
	Calibrated         float64          `json:"calibrated"`
	CalibratedInterval routing.Interval `json:"calibrated_interval"`
	Live               float64          `json:"live"` // of the last LiveImages
	LiveInterval       routing.Interval `json:"live_interval"`
	LiveImages         int64            `json:"live_images"`
}

// Watch is what one watch says.
type Watch struct {
	Name     string  `json:"name"`
	Off      string  `json:"off"` // why it does not watch, "" where it does
	Level    float64 `json:"level"`
	Evidence float64 `json:"evidence"` // 1 at the start
	Needs    float64 `json:"needs"`    // the evidence that raises the alarm
	Alarm    *Alarm  `json:"alarm"`
	Says     string  `json:"says"`
}

// Report returns what the monitor says now.
func (m *Monitor) Report() Report {
	m.lock.Lock()
	defer m.lock.Unlock()
	r := Report{
		Promise: m.promise(), Images: m.images, Audited: m.audited, Labelled: m.labelled,
		Awaited: len(m.awaited.images), Dropped: m.awaited.dropped,
		Share: m.options.Share, Raised: m.raised(), Loss: m.losses.inOrder().mean(-1),
		Disagreement: m.disagreements.inOrder().mean(0), Escalation: m.escalations(),
		Router: m.subject.Router,
	}
	if r.Raised {
		r.Share = m.options.RaisedShare
	}
	for _, w := range m.watches() {
		found := Watch{
			Name: w.name, Off: w.off, Level: m.options.Level, Evidence: w.evidence,
			Needs: w.needs, Alarm: w.alarm,
		}
		switch {
		case w.off != "":
			found.Says = "off: " + w.off
		case w.alarm == nil:
			found.Says = fmt.Sprintf("no alarm: evidence %.3g of %g after %d numbers", w.evidence,
				w.needs, w.n)
		default:
			found.Says = m.says(w, r)
			if r.Alarm == "" && m.isPromise(w) {
				r.Alarm = found.Says
			}
		}
		r.Watches = append(r.Watches, found)
	}
	return r
}

func (m *Monitor) watches() []*watch {
	return []*watch{m.accuracy, m.agreement, m.escalation, m.prior}
}

// promise is what the router guarantees.
func (m *Monitor) promise() string {
	t := m.router.Threshold
	if t.Verdict != routing.Pass {
		return "nothing is guaranteed: " + t.Guaranteed() + " was not shown"
	}
	return t.Guaranteed()
}

// isPromise reports whether the alarm of a watch says that the promise does not hold.
func (m *Monitor) isPromise(w *watch) bool {
	_, promised := promisedEscalation(m.router)
	return w == m.accuracy || w == m.escalation && promised && w.strongest() == 0
}

// says is the sentence of an alarm.
func (m *Monitor) says(w *watch, r Report) string {
	at := fmt.Sprintf("image %d", w.alarm.Image)
	if w.alarm.Time != "" {
		at += ", " + w.alarm.Time
	}
	since := fmt.Sprintf(" (evidence %.3g of %g at %s)", w.alarm.Evidence, w.needs, at)
	switch w.name {
	case AccuracyWatch:
		return fmt.Sprintf("the promise of %s points no longer holds: on the last %d labelled "+
			"audits the cascade loses %s points against the heavy expert", short(w.upper),
			r.Loss.Audits, r.Loss.points()) + since
	case AgreementWatch:
		return fmt.Sprintf("the cascade's answers differ from the heavy expert's on %s %% of the "+
			"images of the last %d audits, and at most %s %% is what calibration showed: the "+
			"promise may no longer hold, which labels would say", r.Disagreement.points(),
			r.Disagreement.Audits, short(w.upper)) + since
	case EscalationWatch:
		return m.escalationSays(w, r.Escalation) + since
	}
	reference := "on the calibration images and all before"
	if m.subject.Calibration == "" {
		reference = "on all images before"
	}
	return fmt.Sprintf("the %s of the images is no longer distributed as %s: other images come, "+
		"or in another mix", m.router.Prior, reference) + since
}

func (m *Monitor) escalationSays(w *watch, e Escalations) string {
	live := fmt.Sprintf("%.2f %% of the last %d images escalate", 100*e.Live, e.LiveImages)
	_, promised := promisedEscalation(m.router)
	switch {
	case w.strongest() == 1:
		return fmt.Sprintf("fewer images escalate than calibration showed: %s, and at least %s %% "+
			"is what it showed", live, short(w.lower))
	case promised:
		return fmt.Sprintf("the promise of an escalation of at most %s %% no longer holds: %s",
			short(w.upper), live)
	}
	return fmt.Sprintf("more images escalate than calibration showed: %s, and at most %s %% is "+
		"what it showed", live, short(w.upper))
}

func (m *Monitor) escalations() Escalations {
	l := m.router.Ledger
	live, n := m.recent.rate()
	e := Escalations{
		Calibrated:         l.Escalation,
		CalibratedInterval: routing.Wilson(l.Escalation, float64(l.Samples)),
		Live:               live, LiveInterval: routing.Interval{0, 1}, LiveImages: n,
	}
	if n > 0 {
		e.LiveInterval = routing.Wilson(live, float64(n))
	}
	return e
}

// points is a mean in percentage points, with its interval.
func (m *Mean) points() string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", 100*m.Value, 100*m.Interval[0], 100*m.Interval[1])
}

// short is a share in percent, of two decimals at most.
func short(share float64) string { return fmt.Sprintf("%g", math.Round(1e4*share)/100) }
