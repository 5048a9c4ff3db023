package monitor

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// In every state, whatever was seen before, the evidence does not grow on average where the null
// holds: for any number of two values whose mean is 0 or less.
func TestEvidenceIsASupermartingale(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bets := betsBelow(rapid.Float64Range(0.01, 1).Draw(t, "greatest"))
		build := func(history []float64) *process {
			p := newProcess(bets, bets)
			for _, x := range history {
				p.add(x, -x)
			}
			return p
		}
		x := rapid.Float64Range(-1, 1)
		history := rapid.SliceOfN(x, 0, 60).Draw(t, "history")
		low := rapid.Float64Range(-1, 0).Draw(t, "low")
		high := rapid.Float64Range(0, 1).Draw(t, "high")
		if high-low < 1e-6 {
			return
		}
		p := -low / (high - low) // of high, so that the mean is 0
		before := build(history).evidence
		after := p*build(append(history, high)).evidence +
			(1-p)*build(append(history, low)).evidence
		if after > before*(1+1e-12) || after < before*(1-1e-12) {
			t.Fatalf("the evidence is %v and becomes %v on average", before, after)
		}
		if before < 0 {
			t.Fatalf("the evidence is %v", before)
		}
	})
}

// By hand: one bet, two numbers.
func TestEvidenceByHand(t *testing.T) {
	p := newProcess([]float64{0.5})
	first, second := cashAfter(1), cashAfter(2)
	if got, want := p.add(1), first+(1-first)*1.5; math.Abs(got-want) > 1e-15 {
		t.Fatalf("got %v, want %v", got, want)
	}
	want := second + ((1-first)*1.5+first-second)*0.5
	if got := p.add(-1); math.Abs(got-want) > 1e-15 || got != p.evidence {
		t.Fatalf("got %v and %v, want %v", got, p.evidence, want)
	}
}

// The weights of all starts sum to 1 at most, and evidence stays finite however long a change
// lasts.
func TestEvidenceStaysFinite(t *testing.T) {
	p := newProcess([]float64{0.8, 0.1})
	for range 10_000 {
		p.add(1)
	}
	if math.IsInf(p.evidence, 0) || p.evidence < mostEvidence {
		t.Fatalf("the evidence is %v", p.evidence)
	}
	for range 10_000 {
		p.add(-1)
	}
	if !(p.evidence >= p.cash) || !(p.cash > 0) {
		t.Fatalf("the evidence is %v, the cash %v", p.evidence, p.cash)
	}
}
