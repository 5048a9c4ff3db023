package routing

import (
	"math"
	"slices"

	"agflow/core/fault"
	"agflow/core/strictjson"
)

// RouterFormat is the format number of router.json that is written; all from 1 on are read.
const RouterFormat = 4

// ParseRouter reads the content of router.json. Format 4 has a checksum; formats 1 to 3, which have
// none, are upgraded.
//
// Errors: file (not JSON, damaged, a format that is not known, a key that is missing, null or not
// known, a value out of its range).
func ParseRouter(content []byte) (r Router, err error) {
	if len(content) > strictjson.MaxBytes {
		return Router{}, fault.New(fault.File, "the router has %d bytes, expected at most %d",
			len(content), strictjson.MaxBytes)
	}
	format, err := strictjson.Format(content)
	if err == nil {
		switch {
		case format == RouterFormat:
			if content, err = strictjson.Open(content); err == nil {
				err = strictjson.Whole(content, &r)
			}
		case format > RouterFormat:
			return Router{}, fault.New(fault.File,
				"the router has format %d, this version reads up to %d: upgrade agflow", format,
				RouterFormat)
		default:
			r, err = parseOld(format, content)
		}
	}
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		return Router{}, fault.New(fault.File,
			"the router can't be read: %s; calibrate it again", fault.Sentence(err))
	}
	return r, nil
}

// Encode returns the content of router.json.
func (r Router) Encode() ([]byte, error) { return strictjson.Seal(r) }

// Validate checks what every user of a router relies on.
//
// Errors: value.
func (r Router) Validate() error {
	switch t := r.Threshold; {
	case r.Format != RouterFormat:
		return fault.New(fault.Value, "its format is %d, expected %d", r.Format, RouterFormat)
	case r.Prior == "" || len(r.Prior) > maxPriorName:
		return fault.New(fault.Value, "its prior is %.40q, expected a name of at most %d bytes",
			r.Prior, maxPriorName)
	case r.Answers != HeavyAnswers && r.Answers != EnsembleAnswers:
		return fault.New(fault.Value, "its answers are %.40q, expected %s or %s", r.Answers,
			HeavyAnswers, EnsembleAnswers)
	case math.IsNaN(t.Threshold):
		return fault.New(fault.Value, "its threshold is NaN, expected a number")
	case !slices.Contains([]string{Pass, Fail, InsufficientData}, t.Verdict):
		return fault.New(fault.Value, "its verdict is %.40q, expected %s, %s or %s", t.Verdict,
			Pass, Fail, InsufficientData)
	case !slices.Contains([]string{AccuracyTarget, EscalationTarget, ChargedTarget}, t.Target):
		return fault.New(fault.Value, "its target is %.40q, expected %s, %s or %s", t.Target,
			AccuracyTarget, EscalationTarget, ChargedTarget)
	case t.NeededSamples < 0:
		return fault.New(fault.Value, "it needs %d samples, expected a number from 0",
			t.NeededSamples)
	}
	for _, share := range []struct {
		name  string
		value float64
	}{
		{"confidence", r.Confidence}, {"escalation", r.Threshold.Escalation},
		{"accuracy_light", r.AccuracyLight}, {"accuracy_heavy", r.AccuracyHeavy},
		{"accuracy_cascade", r.AccuracyCascade},
	} {
		if !(share.value >= 0 && share.value <= 1) {
			return fault.New(fault.Value, "its %s is %v, expected a number from 0 to 1",
				share.name, share.value)
		}
	}
	if err := checkTemperature(r.Temperature); err != nil {
		return err
	}
	if err := checkLightWeight(r.LightWeight); err != nil {
		return err
	}
	_, err := NewLedger(r.Ledger.cost(), r.Ledger.Samples, r.Ledger.Escalated)
	return err
}

// maxPriorName is the greatest length of a prior's name, in bytes.
const maxPriorName = 256
