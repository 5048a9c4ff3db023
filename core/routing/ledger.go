package routing

import "agflow/core/fault"

// Cost has the MACs of one image: of the light expert, of the heavy expert, and of the prefix that
// they share, which is computed once for an escalated image.
type Cost struct{ Light, Heavy, Shared int64 }

// The verdicts of a ledger.
const (
	Gain = "gain"
	Loss = "loss"
)

// Ledger has the expected cost per image of a cascade. Ratios are to the heavy expert's cost for
// every image.
type Ledger struct {
	Samples    int64   `json:"samples"`
	Escalated  int64   `json:"escalated"`
	Escalation float64 `json:"escalation"` // Escalated / Samples
	LightMACs  int64   `json:"light_macs"`
	HeavyMACs  int64   `json:"heavy_macs"`
	SharedMACs int64   `json:"shared_macs"`
	// (light + e*(heavy-shared)) / heavy: includes the light pass of escalated images
	Charged float64 `json:"charged"`
	// ((1-e)*light + e*heavy) / heavy: as arXiv 2603.12354 counts, for comparison
	Uncharged float64 `json:"uncharged"`
	// the escalation at which Charged is 1; 0 when Charged is never below 1
	BreakEven float64 `json:"break_even"`
	Verdict   string  `json:"verdict"` // Loss when Charged is 1 or more
}

// NewLedger computes the ledger of a cascade that escalated some of its samples to the heavy
// expert.
//
// Errors: value (impossible costs or counts), empty (no samples).
func NewLedger(c Cost, samples, escalated int64) (Ledger, error) {
	if err := c.validate(); err != nil {
		return Ledger{}, err
	}
	if samples < 1 {
		return Ledger{}, fault.New(fault.Empty, "%d samples were given; a ledger needs at least 1",
			samples)
	}
	if escalated < 0 || escalated > samples {
		return Ledger{}, fault.New(fault.Value,
			"%d of %d samples escalated; the number must be from 0 to %d", escalated, samples,
			samples)
	}
	e := float64(escalated) / float64(samples)
	l := Ledger{
		Samples: samples, Escalated: escalated, Escalation: e,
		LightMACs: c.Light, HeavyMACs: c.Heavy, SharedMACs: c.Shared,
		Charged: c.charged(e), Uncharged: c.uncharged(e), BreakEven: c.breakEven(), Verdict: Gain,
	}
	if l.Charged >= 1 {
		l.Verdict = Loss
	}
	return l, nil
}

func (c Cost) validate() error {
	if c.Light < 1 || c.Heavy < 1 {
		return fault.New(fault.Value,
			"the light expert has %d MACs and the heavy one %d; both must be at least 1", c.Light,
			c.Heavy)
	}
	if c.Shared < 0 || c.Shared > min(c.Light, c.Heavy) {
		return fault.New(fault.Value,
			"the experts share %d MACs; that must be from 0 to the smaller expert's %d", c.Shared,
			min(c.Light, c.Heavy))
	}
	return nil
}

func (c Cost) charged(e float64) float64 {
	return (float64(c.Light) + e*float64(c.Heavy-c.Shared)) / float64(c.Heavy)
}

func (c Cost) uncharged(e float64) float64 {
	return ((1-e)*float64(c.Light) + e*float64(c.Heavy)) / float64(c.Heavy)
}

func (c Cost) breakEven() float64 {
	if c.Light >= c.Heavy {
		return 0
	}
	return float64(c.Heavy-c.Light) / float64(c.Heavy-c.Shared)
}
