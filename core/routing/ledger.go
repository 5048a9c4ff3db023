package routing

import (
	"math"
	"strings"
	"unicode"

	"agflow/core/fault"
)

// MACs is the unit of costs that were counted. Costs that were measured, or paid, have any other:
// "ms", "EUR".
const MACs = "MACs"

// Relative is the unit of costs of which only the ratio is known: 0.25x of 1x.
const Relative = "x"

// Cost has the cost of one image, in any unit: of the light expert, of the heavy expert, and of the
// prefix that they share, which is computed once for an escalated image.
type Cost struct {
	Light, Heavy, Shared float64
	Unit                 string
}

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
	LightCost  float64 `json:"light_cost"` // of one image, in CostUnit, as are the next two
	HeavyCost  float64 `json:"heavy_cost"`
	SharedCost float64 `json:"shared_cost"`
	CostUnit   string  `json:"cost_unit"`
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
		LightCost: c.Light, HeavyCost: c.Heavy, SharedCost: c.Shared, CostUnit: c.Unit,
		Charged: c.charged(e), Uncharged: c.uncharged(e), BreakEven: c.breakEven(), Verdict: Gain,
	}
	if l.Charged >= 1 {
		l.Verdict = Loss
	}
	return l, nil
}

// cost is the cost that a ledger was computed with.
func (l Ledger) cost() Cost { return Cost{l.LightCost, l.HeavyCost, l.SharedCost, l.CostUnit} }

// maxUnit is the greatest length of a unit's name, in bytes.
const maxUnit = 32

func (c Cost) validate() error {
	if err := checkUnit(c.Unit); err != nil {
		return err
	}
	if !(c.Light > 0) || !(c.Heavy > 0) || math.IsInf(c.Light, 1) || math.IsInf(c.Heavy, 1) {
		return fault.New(fault.Value,
			"the light expert costs %v %s and the heavy one %v; both must be above 0 and finite",
			c.Light, c.Unit, c.Heavy)
	}
	if !(c.Shared >= 0 && c.Shared <= min(c.Light, c.Heavy)) {
		return fault.New(fault.Value,
			"the experts share a cost of %v %s; that must be from 0 to the smaller expert's %v",
			c.Shared, c.Unit, min(c.Light, c.Heavy))
	}
	for _, ratio := range []float64{c.charged(0), c.charged(1)} {
		if math.IsInf(ratio, 0) {
			return fault.New(fault.Value,
				"costs of %v %s for the light expert and %v for the heavy one have no ratio; "+
					"give both in one unit", c.Light, c.Unit, c.Heavy)
		}
	}
	return nil
}

// checkUnit refuses what is no word for a unit.
func checkUnit(unit string) error {
	if unit == "" || len(unit) > maxUnit || strings.ContainsFunc(unit, unicode.IsControl) {
		return fault.New(fault.Value,
			"the unit of the costs is %.40q; it is a word of at most %d bytes, such as %q, "+
				"\"ms\" or \"EUR\"", unit, maxUnit, MACs)
	}
	return nil
}

// sameUnit refuses costs of two units, which can't be compared.
func sameUnit(first, second, of, with string) error {
	if first != second {
		return fault.New(fault.Value,
			"the costs of %s are in %s and those of %s in %s; give both in one unit",
			of, first, with, second)
	}
	return nil
}

func (c Cost) charged(e float64) float64 { return (c.Light + e*(c.Heavy-c.Shared)) / c.Heavy }

func (c Cost) uncharged(e float64) float64 { return ((1-e)*c.Light + e*c.Heavy) / c.Heavy }

func (c Cost) breakEven() float64 {
	if c.Light >= c.Heavy {
		return 0
	}
	return (c.Heavy - c.Light) / (c.Heavy - c.Shared)
}
