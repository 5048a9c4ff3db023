package monitor

// The audit draws images before their heavy expert or label is known, so that what is drawn stands
// for all images. It may depend on everything before and on the image's own prior: an image is
// weighed by the inverse of its probability.

const (
	// nearest is the part of the images that do not escalate, nearest to the threshold, where most
	// losses lie, and nearFactor is how much more of them is audited than on average.
	nearest, nearFactor = 0.2, 2
	// ranked is the number of images that stay below which nothing is known of what is near.
	ranked = 100
	// An audit is raised while a trend, which forgets, is at least trigger.
	trigger = 1.7
)

// shares are the probabilities with which images near the threshold and all others are drawn.
type shares struct{ near, far float64 }

// sharesOf has a mean over the images that stay.
func sharesOf(mean float64) shares {
	near := min(1, nearFactor*mean)
	return shares{near, min(1, (mean-nearest*near)/(1-nearest))}
}

func (s shares) least() float64 { return min(s.near, s.far) }

// trend is a CUSUM of bets (Page 1954): it never falls below 1, so that it forgets.
type trend struct {
	bet, value float64
}

func (t *trend) add(x float64) { t.value = min(max(1, t.value)*(1+t.bet*x), mostEvidence) }

// Audit draws whether an image is audited, once the light expert has answered it. Images that
// escalate are drawn, too: the heavy expert answers them anyway.
func (m *Monitor) Audit(prior float32, escalates bool) Draw {
	m.lock.Lock()
	defer m.lock.Unlock()
	now := m.sharesNow()
	share := now.far
	if !escalates && m.isNear(prior) {
		share = now.near
	}
	return Draw{m.random.Float64() < share, share, now.least()}
}

func (m *Monitor) sharesNow() shares {
	if m.raised() {
		return m.raisedShares
	}
	return m.calmShares
}

// raised reports whether recent audits look worse than they should.
func (m *Monitor) raised() bool {
	return m.losing.value >= trigger || m.differing.value >= trigger
}

// isNear reports whether a prior is among those nearest to the threshold, of all images before
// that did not escalate.
func (m *Monitor) isNear(prior float32) bool {
	staying := m.ranks.total - m.belowThreshold
	return staying >= ranked &&
		float64(m.ranks.below(binOf(prior))-m.belowThreshold) < nearest*float64(staying)
}
