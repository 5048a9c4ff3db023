package routing

import "fmt"

// Noisy is what a clock says, besides Gain and Loss, where its rounds do not agree.
const Noisy = "too noisy to tell"

// Clock has the images per second of a cascade as a ratio of the heavy expert's, which was timed in
// the same rounds.
type Clock struct {
	Speed   float64 `json:"speed"`   // median of the rounds
	Slowest float64 `json:"slowest"` // of one round
	Fastest float64 `json:"fastest"`
	Finding string  `json:"finding"` // Gain, Loss or Noisy
}

// Evidence is what is known of a cascade beside the calibration of its threshold.
type Evidence struct {
	Ledger     Ledger
	Difference *Difference // on test images; nil where only the calibration is known
	Clock      *Clock      // nil where nothing was timed
}

// Verdict says on two counts whether a cascade may be deployed: whether its limit is guaranteed,
// and whether it saves anything, by its expected cost and by the clock. Its texts are those of the
// command, of Python and of reports.
type Verdict struct {
	// that of the calibration, but Fail where test images break the limit
	Guarantee string `json:"guarantee"`
	Cost      string `json:"cost"`   // Gain or Loss, of the expected cost per image
	Clock     string `json:"clock"`  // Gain, Loss or Noisy; "" where nothing was timed
	Deploy    bool   `json:"deploy"` // guaranteed, and no loss, neither by cost nor by the clock
	Line      string `json:"line"`   // both counts and their figures
	Meaning   string `json:"meaning"`
	Cure      string `json:"cure"` // what to do; "" with Deploy
}

// NewVerdict returns the verdict on a cascade with a calibrated threshold.
func NewVerdict(t Threshold, e Evidence) Verdict {
	v := Verdict{Guarantee: t.Verdict, Cost: e.Ledger.Verdict, Meaning: t.meaning()}
	broken := t.broken(e)
	if broken != "" {
		v.Guarantee, v.Meaning = Fail, broken
	}
	if e.Clock != nil {
		v.Clock = e.Clock.Finding
	}
	v.Deploy = v.Guarantee == Pass && v.Cost == Gain && v.Clock != Loss
	v.Line = v.line(e, t.Target)
	switch {
	case v.Deploy:
	case broken != "":
		v.Cure = "calibrate the threshold again, on held-out images like the test images"
	case v.Guarantee != Pass:
		v.Cure = t.cure()
	case v.Cost == Loss:
		v.Cure = e.Ledger.cure()
	default:
		v.Cure = "prune by measured time (latency_ms, a greater round_to) or run larger batches"
	}
	return v
}

// Guaranteed is the limit that a threshold keeps with its confidence.
func (t Threshold) Guaranteed() string {
	switch t.Target {
	case AccuracyTarget:
		return fmt.Sprintf("accuracy(cascade) >= accuracy(heavy) - %g", t.Limit)
	case EscalationTarget:
		return fmt.Sprintf("escalation <= %g", t.Limit)
	}
	return fmt.Sprintf("expected cost per image <= %gx", t.Limit)
}

func (t Threshold) meaning() string {
	fallback := "every image escalates"
	if t.Target != AccuracyTarget {
		fallback = "no image escalates"
	}
	switch t.Verdict {
	case Pass:
		return fmt.Sprintf("guaranteed with confidence %g, from %d held-out images: %s",
			t.Confidence, t.Samples, t.Guaranteed())
	case InsufficientData:
		return fmt.Sprintf("not guaranteed: %s: %d held-out images are too few to show it, "+
			"about %d would suffice; until then %s",
			t.Guaranteed(), t.Samples, t.NeededSamples, fallback)
	}
	return fmt.Sprintf("not guaranteed: %s: what was observed on %d held-out images breaks it; %s",
		t.Guaranteed(), t.Samples, fallback)
}

// broken says how test images break the limit of a threshold that passed: beyond the 95 %
// confidence interval of what was observed on them. It is "" where they do not.
func (t Threshold) broken(e Evidence) string {
	if t.Verdict != Pass || e.Difference == nil {
		return ""
	}
	what, observed, within := "accuracy(cascade) - accuracy(heavy)", e.Difference.Observed,
		e.Difference.Interval
	isBroken := within[1] < -t.Limit
	if t.Target != AccuracyTarget {
		what, observed = "the escalation", e.Ledger.Escalation
		within = Wilson(observed, float64(e.Ledger.Samples))
		if t.Target == ChargedTarget {
			what, observed = "the expected cost per image", e.Ledger.Charged
			within = within.through(e.Ledger.cost().charged)
		}
		isBroken = within[0] > t.Limit
	}
	if !isBroken {
		return ""
	}
	return fmt.Sprintf("%s does not hold on %d test images, although %d held-out images showed "+
		"it: %s is %.4f there (%.4f to %.4f)", t.Guaranteed(), e.Ledger.Samples, t.Samples, what,
		observed, within[0], within[1])
}

// line has both counts and their figures.
func (v Verdict) line(e Evidence, target string) string {
	by, cost := "MACs", fmt.Sprintf("%.3fx the heavy expert's MACs per image", e.Ledger.Charged)
	if unit := e.Ledger.CostUnit; unit != MACs {
		by, cost = "cost", fmt.Sprintf("%.3fx the heavy expert's cost per image", e.Ledger.Charged)
		if unit != Relative {
			cost += " (" + unit + ")"
		}
	}
	count, isLoss := "a gain", v.Cost == Loss || v.Clock == Loss
	if isLoss {
		count = "a LOSS"
	}
	if c := e.Clock; c != nil {
		speed, within := fmt.Sprintf("%.2fx its images/s", c.Speed),
			fmt.Sprintf("%.2fx to %.2fx", c.Slowest, c.Fastest)
		switch {
		case v.Clock == v.Cost:
			cost += ", " + speed
		case v.Clock == Noisy:
			count += " by " + by
			cost += fmt.Sprintf("; the clock is %s: %s (%s)", Noisy, speed, within)
		default:
			if v.Clock == Loss {
				by = "the clock"
			}
			count += " by " + by
			cost += fmt.Sprintf(", which the clock contradicts: %s (%s)", speed, within)
		}
	}
	join := ", but "
	if (v.Guarantee == Pass) != isLoss {
		join = " and "
	}
	line := v.Guarantee + join + count + ": " + cost
	if target != AccuracyTarget {
		line += "; accuracy not guaranteed"
	}
	if !v.Deploy {
		line += ": do not deploy this cascade"
	}
	return line
}

// cure says what to do where the limit is not guaranteed.
func (t Threshold) cure() string {
	limit := fmt.Sprintf("a larger tolerance than %g", t.Limit)
	if t.Target != AccuracyTarget {
		limit = fmt.Sprintf("a higher limit than %g", t.Limit)
	}
	switch {
	case t.Verdict == InsufficientData:
		return fmt.Sprintf("hold out about %d images instead of %d, or accept %s",
			t.NeededSamples, t.Samples, limit)
	case t.Target == AccuracyTarget:
		return "make the light expert more accurate (more epochs, a larger budget), or accept " +
			limit
	}
	return "hold out more images, or accept " + limit
}

// cure says what to do about a loss.
func (l Ledger) cure() string {
	if l.LightCost >= l.HeavyCost {
		return fmt.Sprintf("make the light expert smaller: it alone costs %.3fx",
			l.LightCost/l.HeavyCost)
	}
	return fmt.Sprintf("make the light expert smaller or more accurate, or accept a larger "+
		"tolerance: %.1f %% escalate, and break-even is at %.1f %%", 100*l.Escalation,
		100*l.BreakEven)
}
