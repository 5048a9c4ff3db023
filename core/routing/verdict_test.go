package routing

import (
	"math"
	"strings"
	"testing"
)

func threshold(verdict string) Threshold {
	return Threshold{Verdict: verdict, Target: AccuracyTarget, Limit: 0.01, Confidence: 0.95,
		Samples: 400, NeededSamples: 1200}
}

func ledgerOf(t *testing.T, light float64, escalated int64, unit string) Ledger {
	t.Helper()
	l, err := NewLedger(Cost{Light: light, Heavy: 100, Unit: unit}, 1000, escalated)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Every pair of a guarantee and a cost, with and without a clock: what is said first, and whether
// the cascade may be deployed.
func TestVerdictOnBothCounts(t *testing.T) {
	gain, loss := ledgerOf(t, 20, 230, MACs), ledgerOf(t, 85, 451, MACs)
	clock := func(finding string) *Clock { return &Clock{1.5, 1.25, 1.75, finding} }
	for _, c := range []struct {
		guarantee string
		evidence  Evidence
		deploy    bool
		line      string
	}{
		{Pass, Evidence{Ledger: gain}, true,
			"PASS and a gain: 0.430x the heavy expert's MACs per image"},
		{Pass, Evidence{Ledger: loss}, false,
			"PASS, but a LOSS: 1.301x the heavy expert's MACs per image: do not deploy this " +
				"cascade"},
		{Fail, Evidence{Ledger: loss}, false,
			"FAIL and a LOSS: 1.301x the heavy expert's MACs per image: do not deploy this " +
				"cascade"},
		{InsufficientData, Evidence{Ledger: gain}, false,
			"INSUFFICIENT DATA, but a gain: 0.430x the heavy expert's MACs per image: do not " +
				"deploy this cascade"},
		{Pass, Evidence{Ledger: gain, Clock: clock(Gain)}, true,
			"PASS and a gain: 0.430x the heavy expert's MACs per image, 1.50x its images/s"},
		{Pass, Evidence{Ledger: gain, Clock: clock(Noisy)}, true,
			"PASS and a gain by MACs: 0.430x the heavy expert's MACs per image; the clock is too " +
				"noisy to tell: 1.50x its images/s (1.25x to 1.75x)"},
		{Pass, Evidence{Ledger: gain, Clock: clock(Loss)}, false,
			"PASS, but a LOSS by the clock: 0.430x the heavy expert's MACs per image, which " +
				"the clock contradicts: 1.50x its images/s (1.25x to 1.75x): do not deploy this " +
				"cascade"},
		{Pass, Evidence{Ledger: loss, Clock: clock(Gain)}, false,
			"PASS, but a LOSS by MACs: 1.301x the heavy expert's MACs per image, which the " +
				"clock contradicts: 1.50x its images/s (1.25x to 1.75x): do not deploy this " +
				"cascade"},
		{Pass, Evidence{Ledger: loss, Clock: clock(Loss)}, false,
			"PASS, but a LOSS: 1.301x the heavy expert's MACs per image, 1.50x its images/s: do " +
				"not deploy this cascade"},
		{Pass, Evidence{Ledger: ledgerOf(t, 20, 230, "EUR")}, true,
			"PASS and a gain: 0.430x the heavy expert's cost per image (EUR)"},
		{Pass, Evidence{Ledger: ledgerOf(t, 20, 230, Relative)}, true,
			"PASS and a gain: 0.430x the heavy expert's cost per image"},
	} {
		v := NewVerdict(threshold(c.guarantee), c.evidence)
		if v.Line != c.line || v.Deploy != c.deploy || (v.Cure == "") != c.deploy {
			t.Errorf("got %+v\nwant %v %q", v, c.deploy, c.line)
		}
	}
}

// A cost of exactly the heavy expert's saves nothing.
func TestNoSavingIsALoss(t *testing.T) {
	if v := NewVerdict(threshold(Pass), Evidence{Ledger: ledgerOf(t, 50, 500, MACs)}); v.Deploy {
		t.Error(v.Line)
	}
}

func TestVerdictSaysWhatItMeansAndWhatToDo(t *testing.T) {
	limited := threshold(InsufficientData)
	limited.Target = EscalationTarget
	for _, c := range []struct {
		threshold     Threshold
		ledger        Ledger
		meaning, cure string
	}{
		{threshold(Pass), ledgerOf(t, 20, 230, MACs),
			"guaranteed with confidence 0.95, from 400 held-out images: accuracy(cascade) >= " +
				"accuracy(heavy) - 0.01", ""},
		{threshold(InsufficientData), ledgerOf(t, 20, 1000, MACs),
			"400 held-out images are too few to show it, about 1200 would suffice; until then " +
				"every image escalates", "hold out about 1200 images instead of 400"},
		{threshold(Fail), ledgerOf(t, 20, 1000, MACs), "every image escalates",
			"a larger tolerance than 0.01"},
		{threshold(Pass), ledgerOf(t, 85, 451, MACs), "guaranteed",
			"45.1 % escalate, and break-even is at 15.0 %"},
		{threshold(Pass), ledgerOf(t, 120, 0, MACs), "guaranteed", "it alone costs 1.200x"},
		{limited, ledgerOf(t, 20, 0, MACs), "no image escalates", "a higher limit than 0.01"},
	} {
		v := NewVerdict(c.threshold, Evidence{Ledger: c.ledger})
		if !strings.Contains(v.Meaning, c.meaning) || !strings.Contains(v.Cure, c.cure) {
			t.Errorf("got %+v\nwant %q and %q", v, c.meaning, c.cure)
		}
	}
	slow := Evidence{Ledger: ledgerOf(t, 20, 230, MACs), Clock: &Clock{0.8, 0.7, 0.9, Loss}}
	if v := NewVerdict(threshold(Pass), slow); !strings.Contains(v.Cure, "by measured time") {
		t.Error(v.Cure)
	}
}

// Test images on which the limit clearly does not hold make a FAIL of a PASS; an interval that
// reaches the limit does not.
func TestTestImagesBreakAGuarantee(t *testing.T) {
	gain := ledgerOf(t, 20, 230, MACs)
	of := func(low, high float64) *Difference {
		return &Difference{(low + high) / 2, Interval{low, high}}
	}
	v := NewVerdict(threshold(Pass), Evidence{Ledger: gain, Difference: of(-0.05, -0.011)})
	if v.Guarantee != Fail || v.Deploy || !strings.Contains(v.Meaning, "does not hold on 1000") ||
		!strings.Contains(v.Cure, "calibrate the threshold again") {
		t.Errorf("%+v", v)
	}
	v = NewVerdict(threshold(Pass), Evidence{Ledger: gain, Difference: of(-0.05, -0.009)})
	if v.Guarantee != Pass {
		t.Errorf("%+v", v)
	}
	for _, target := range []string{EscalationTarget, ChargedTarget} {
		for limit, want := range map[string]string{"0.1": Fail, "0.5": Pass} {
			limited := threshold(Pass)
			limited.Target, limited.Limit = target, 0.1
			if limit == "0.5" {
				limited.Limit = 0.5
			}
			v := NewVerdict(limited, Evidence{Ledger: gain, Difference: of(-0.9, -0.8)})
			if v.Guarantee != want || !strings.Contains(v.Line, "accuracy not guaranteed") {
				t.Errorf("%s %s: %+v", target, limit, v)
			}
		}
	}
}

// The interval of 3 losses and 9 gains of 100 is that of the tests in Python; it is symmetric, and
// its ends solve their equation.
func TestPairedInterval(t *testing.T) {
	got := pairedInterval(3, 9, 100)
	if math.Abs(got[0]+0.0091) > 5e-5 || math.Abs(got[1]-0.1377) > 5e-5 {
		t.Error(got)
	}
	for _, c := range [][3]float64{{0, 0, 50}, {5, 0, 20}, {7, 7, 1000}, {0, 1, 1}, {1, 0, 1}} {
		this, other := pairedInterval(c[0], c[1], c[2]), pairedInterval(c[1], c[0], c[2])
		observed := (c[1] - c[0]) / c[2]
		if !(-1 <= this[0] && this[0] <= observed && observed <= this[1] && this[1] <= 1) ||
			math.Abs(this[0]+other[1]) > 1e-12 || math.Abs(this[1]+other[0]) > 1e-12 {
			t.Errorf("%v: %v and %v", c, this, other)
		}
	}
	if got := pairedInterval(0, 0, 50); !(got[0] < -0.01 && got[1] > 0.01) {
		t.Error(got) // nothing was observed, which does not show that nothing can be
	}
}
