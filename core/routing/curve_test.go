package routing

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"agflow/core/fault"
)

// at is the definition of a point: one pass over the samples.
func at(o Outcomes, c Cost, threshold float64) Point {
	p, escalated := Point{Threshold: threshold}, o.HeavyCorrect
	if o.EscalatedCorrect.given() {
		escalated = o.EscalatedCorrect
	}
	n := float64(len(o.Prior))
	var light, whole, correct float64
	for i, prior := range o.Prior {
		right := o.LightCorrect.At(i)
		if float64(prior) < threshold {
			p.Escalated++
			right = escalated.At(i)
		}
		if right {
			correct++
		}
		if o.LightCorrect.At(i) {
			light++
		}
		if escalated.At(i) {
			whole++
		}
	}
	e := float64(p.Escalated) / n
	p.Escalation, p.Accuracy = e, correct/n
	p.Charged = (c.Light + e*(c.Heavy-c.Shared)) / c.Heavy
	p.Uncharged = ((1-e)*c.Light + e*c.Heavy) / c.Heavy
	p.RandomAccuracy = (1-e)*(light/n) + e*(whole/n)
	p.EscalationInterval, p.AccuracyInterval = Wilson(e, n), Wilson(p.Accuracy, n)
	p.RandomInterval = Wilson(p.RandomAccuracy, n)
	p.ChargedInterval = p.EscalationInterval.through(c.charged)
	p.UnchargedInterval = p.EscalationInterval.through(c.uncharged)
	return p
}

// The whole curve equals the definition at every distinct prior and above all priors, with many
// equal priors and with none.
func TestCurveEqualsTheDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	cost := Cost{Light: 300, Heavy: 1000, Shared: 100, Unit: MACs}
	for _, n := range []int{1, 2, 3, 50, 400} {
		for _, distinct := range []int{1, 2, 7, 1 << 20} {
			o := randomOutcomes(r, n, distinct)
			if n%2 == 0 {
				o = combinedOutcomes(r, n, distinct)
			}
			thresholds := []float64{EscalateAll}
			for _, p := range o.Prior {
				thresholds = append(thresholds, float64(p))
			}
			slices.Sort(thresholds)
			var want []Point
			for _, threshold := range slices.Compact(thresholds) {
				want = append(want, at(o, cost, threshold))
			}
			got, err := Curve(o, cost, n+1)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("n=%d, distinct=%d: got\n%+v, %v\nwant\n%+v", n, distinct, got, err, want)
			}
		}
	}
}

// A thinned curve is a subset with both ends, of no more points than requested, and without gaps in
// escalation.
func TestThinnedCurve(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	cost := Cost{Light: 300, Heavy: 1000, Unit: MACs}
	for _, distinct := range []int{3, 40, 1 << 20} {
		o := randomOutcomes(r, 1000, distinct)
		full, err := Curve(o, cost, 2000)
		if err != nil {
			t.Fatal(err)
		}
		for _, points := range []int{2, 3, 11, 100} {
			got, err := Curve(o, cost, points)
			if err != nil || len(got) > points || got[0] != full[0] ||
				got[len(got)-1] != full[len(full)-1] {
				t.Fatalf("distinct=%d, points=%d: %d points, %v", distinct, points, len(got), err)
			}
			for i, p := range got {
				if !slices.Contains(full, p) {
					t.Fatalf("point %+v is not of the curve", p)
				}
				if i > 0 && p.Escalated <= got[i-1].Escalated {
					t.Fatal("escalation does not rise")
				}
				if distinct == 1<<20 && i > 0 &&
					p.Escalation-got[i-1].Escalation > 1/float64(points-1)+0.002 {
					t.Fatalf("a gap from %v to %v", got[i-1].Escalation, p.Escalation)
				}
			}
		}
	}
}

// Priors of any range: 0 and -0 alike, the smallest and greatest float32, negative ones.
func TestCurveTakesEdgePriors(t *testing.T) {
	o := Outcomes{
		Prior: []float32{
			math.MaxFloat32, 0, -3, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32,
			-math.MaxFloat32, -2.5,
		},
		LightCorrect: bitsOf(true, false, false, true, true, true, false),
		HeavyCorrect: NewBits(7),
	}
	got, err := Curve(o, Cost{Light: 1, Heavy: 2, Unit: MACs}, 10)
	if err != nil || len(got) != 7 {
		t.Fatalf("got %+v, %v", got, err)
	}
	var thresholds []float64
	var escalated []int64
	for _, p := range got {
		thresholds, escalated = append(thresholds, p.Threshold), append(escalated, p.Escalated)
	}
	want := []float64{
		-math.MaxFloat32, -3, -2.5, 0, math.SmallestNonzeroFloat32, math.MaxFloat32, EscalateAll,
	}
	if !slices.Equal(thresholds, want) ||
		!slices.Equal(escalated, []int64{0, 1, 2, 3, 5, 6, 7}) || got[6].Accuracy != 0 {
		t.Fatalf("got %+v", got)
	}
}

func TestOutcomesAreChecked(t *testing.T) {
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		outcomes Outcomes
		code     fault.Code
	}{
		"empty": {Outcomes{}, fault.Empty},
		"light": {Outcomes{Prior: []float32{1}, HeavyCorrect: bitsOf(true)}, fault.Shape},
		"heavy": {
			Outcomes{
				Prior: []float32{1}, LightCorrect: bitsOf(true), HeavyCorrect: bitsOf(true, true),
			},
			fault.Shape,
		},
		"ensemble": {
			Outcomes{
				Prior: []float32{1}, LightCorrect: bitsOf(true), HeavyCorrect: bitsOf(true),
				EscalatedCorrect: bitsOf(),
			},
			fault.Shape,
		},
		"NaN": {
			Outcomes{Prior: []float32{nan}, LightCorrect: bitsOf(true), HeavyCorrect: bitsOf(true)},
			fault.Nonfinite,
		},
		"logits": {
			Outcomes{
				Prior: []float32{float32(math.Inf(1))}, LightCorrect: bitsOf(true),
				HeavyCorrect: bitsOf(true),
			},
			fault.Nonfinite,
		},
	} {
		_, err := Curve(c.outcomes, Cost{Light: 1, Heavy: 2, Unit: MACs}, 10)
		if err == nil || fault.CodeOf(err) != c.code {
			t.Errorf("%s: Curve gave %v", name, err)
		}
		if _, err = Calibrate(c.outcomes, 0.01, 0.95); err == nil || fault.CodeOf(err) != c.code {
			t.Errorf("%s: Calibrate gave %v", name, err)
		}
	}
	ok := Outcomes{Prior: []float32{0.5}, LightCorrect: bitsOf(true), HeavyCorrect: bitsOf(true)}
	_, err := Curve(ok, Cost{Light: 1, Heavy: 2, Unit: MACs}, 1)
	requireCode(t, err, fault.Value)
	_, err = Curve(ok, Cost{}, 10)
	requireCode(t, err, fault.Value)
}

// A million samples take a fraction of a second. The limit is for a busy machine under the race
// detector; it excludes only quadratic work.
func TestCurveOfAMillionSamplesIsQuick(t *testing.T) {
	o := randomOutcomes(rand.New(rand.NewPCG(5, 6)), 1_000_000, 1<<24)
	start := time.Now()
	if _, err := Curve(o, Cost{Light: 1, Heavy: 2, Unit: MACs}, 200); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("took %v", took)
	if took > time.Minute {
		t.Fatalf("took %v", took)
	}
}

func BenchmarkCurve(b *testing.B) {
	o := randomOutcomes(rand.New(rand.NewPCG(5, 6)), 1_000_000, 1<<24)
	for b.Loop() {
		if _, err := Curve(o, Cost{Light: 1, Heavy: 2, Unit: MACs}, 200); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCurveOfTenMillion(b *testing.B) {
	o := randomOutcomes(rand.New(rand.NewPCG(5, 6)), 10_000_000, 1<<24)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Curve(o, Cost{Light: 1, Heavy: 2, Unit: MACs}, 200); err != nil {
			b.Fatal(err)
		}
	}
}
