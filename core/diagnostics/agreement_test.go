package diagnostics

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/planning"
	"agflow/core/statistics"
)

func TestAgreementByHand(t *testing.T) {
	for name, c := range map[string]struct {
		a, b              []float64
		ratio             float64
		kept              int
		jaccard, spearman float64 // spearman NaN stands for nil
	}{
		"equal":    {[]float64{1, 2, 3, 4}, []float64{1, 2, 3, 4}, 0.5, 2, 1, 1},
		"rising":   {[]float64{1, 2, 3, 4}, []float64{1, 4, 9, 16}, 0.5, 2, 1, 1},
		"opposite": {[]float64{1, 2, 3, 4}, []float64{4, 3, 2, 1}, 0.5, 2, 0, -1},
		// {2, 3} and {1, 3}; ranks 1.5 1.5 3 4 and 1 2.5 2.5 4
		"ties":     {[]float64{1, 1, 2, 3}, []float64{1, 2, 2, 3}, 0.5, 2, 1.0 / 3, 3.75 / 4.5},
		"constant": {[]float64{1, 2, 3, 4}, []float64{7, 7, 7, 7}, 0.75, 1, 0, math.NaN()},
		"floor":    {[]float64{1, 2, 3}, []float64{1, 2, 3}, 0.99, 1, 1, 1},
		"tenth": {
			[]float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, []float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0.9,
			1, 1, 1,
		},
	} {
		report, err := Agreement(scoresOf("a", c.a...), scoresOf("b", c.b...), c.ratio)
		if err != nil {
			t.Fatal(err)
		}
		m := report.Overall
		if report.A != "a" || report.B != "b" || report.Layers[0].Kept != c.kept ||
			m.Jaccard != c.jaccard ||
			m.Chance != float64(c.kept)/float64(2*len(c.a)-c.kept) ||
			!sameCorrelation(m.Spearman, c.spearman) {
			t.Errorf("%s: got %+v, spearman %v", name, report, valueOr0(m.Spearman))
		}
		if l := report.Layers[0].Match; l.Jaccard != m.Jaccard ||
			!sameCorrelation(l.Spearman, c.spearman) {
			t.Errorf("%s: the only layer has %+v, overall is %+v", name, l, m)
		}
	}
}

func sameCorrelation(got *float64, want float64) bool {
	if math.IsNaN(want) {
		return got == nil
	}
	return got != nil && math.Abs(*got-want) < 1e-15
}

// Overall pools the units that the layers keep, and ranks all units together.
func TestAgreementPoolsLayers(t *testing.T) {
	layers := []statistics.Layer{
		{Name: "a", Group: "mlp", Rounds: true, Units: 2, UnitWidth: 1, Parts: 1},
		{Name: "b", Group: "mlp", Rounds: true, Units: 6, UnitWidth: 1, Parts: 1},
	}
	a := criteria.Scores{Layers: layers, Score: []float64{1, 2, 11, 12, 13, 14, 15, 16}}
	b := criteria.Scores{Layers: layers, Score: []float64{2, 1, 11, 12, 13, 14, 15, 16}}
	report, err := Agreement(a, b, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	if report.Layers[0].Jaccard != 0 || report.Layers[1].Jaccard != 1 ||
		report.Overall.Jaccard != 3.0/5 || report.Overall.Chance != 4.0/12 {
		t.Errorf("got %+v", report)
	}
	if !sameCorrelation(report.Layers[0].Spearman, -1) ||
		!sameCorrelation(report.Layers[1].Spearman, 1) ||
		!sameCorrelation(report.Overall.Spearman, 1-6*2/(8.0*63)) {
		t.Errorf("got %v, %v, %v", *report.Layers[0].Spearman, *report.Layers[1].Spearman,
			*report.Overall.Spearman)
	}
}

// The units compared are those that a plan of the same ratio keeps.
func TestAgreementKeepsWhatAPlanKeeps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScores(t, "agf", drawLayers(t))
		ratio := drawRatio(t)
		plan, _, err := planning.Solve(planning.Input{Scores: s}, planning.Request{
			PruningRatio: ratio,
		})
		if err != nil {
			t.Fatal(err)
		}
		choice, err := keep(s, ratio)
		if err != nil {
			t.Fatal(err)
		}
		offsets := statistics.Offsets(s.Layers)
		for i, k := range choice {
			units := 0
			for u, stays := range plan.Keep[offsets[i]:offsets[i+1]] {
				if in := k.set[u/64]>>(u%64)&1 == 1; in != stays {
					t.Fatalf("ratio %v, layer %d, unit %d: kept %v, in the plan %v", ratio, i, u,
						in, stays)
				}
				if stays {
					units++
				}
			}
			if units != k.units {
				t.Fatalf("%d units are kept, %d are said", units, k.units)
			}
		}
	})
}

// Agreement is symmetric, full with itself, within its bounds, and sees the order of scores only.
func TestAgreementProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layers := drawLayers(t)
		a, b, ratio := drawScores(t, "a", layers), drawScores(t, "b", layers), drawRatio(t)
		ab, err := Agreement(a, b, ratio)
		if err != nil {
			t.Fatal(err)
		}
		ba, _ := Agreement(b, a, ratio)
		cubed := criteria.Scores{Layers: layers, Score: slices.Clone(b.Score)}
		for i, v := range cubed.Score {
			cubed.Score[i] = v * v * v
		}
		ac, _ := Agreement(a, cubed, ratio)
		self, _ := Agreement(a, a, ratio)
		all := append([]LayerMatch{{Match: ab.Overall}}, ab.Layers...)
		for i, m := range all {
			swapped := append([]LayerMatch{{Match: ba.Overall}}, ba.Layers...)[i]
			monotone := append([]LayerMatch{{Match: ac.Overall}}, ac.Layers...)[i]
			own := append([]LayerMatch{{Match: self.Overall}}, self.Layers...)[i]
			if m.Jaccard < 0 || m.Jaccard > 1 || math.Abs(valueOr0(m.Spearman)) > 1 ||
				(m.Spearman == nil) != (swapped.Spearman == nil) {
				t.Fatalf("out of bounds: %+v", m)
			}
			if swapped.Jaccard != m.Jaccard ||
				math.Abs(valueOr0(swapped.Spearman)-valueOr0(m.Spearman)) > 1e-12 {
				t.Fatalf("not symmetric: %+v, %+v", m, swapped)
			}
			if monotone.Jaccard != m.Jaccard ||
				valueOr0(monotone.Spearman) != valueOr0(m.Spearman) {
				t.Fatalf("a monotone change counts: %+v, %+v", m, monotone)
			}
			if own.Jaccard != 1 || own.Spearman != nil && math.Abs(*own.Spearman-1) > 1e-12 {
				t.Fatalf("not equal to itself: %+v", own)
			}
		}
	})
}

// Random scores agree by about Chance.
func TestChanceIsWhatRandomScoresReach(t *testing.T) {
	layers := []statistics.Layer{
		{Name: "wide", Group: "mlp", Rounds: true, Units: 20_000, UnitWidth: 1, Parts: 1},
	}
	draw := func(seed uint64) criteria.Scores {
		r := rand.New(rand.NewPCG(seed, 1))
		s := criteria.Scores{Layers: layers}
		for range 20_000 {
			s.Score = append(s.Score, r.Float64())
		}
		return s
	}
	for _, ratio := range []float64{0.25, 0.5, 0.9} {
		report, err := Agreement(draw(1), draw(2), ratio)
		if err != nil {
			t.Fatal(err)
		}
		if m := report.Overall; math.Abs(m.Jaccard-m.Chance) > 0.02 ||
			math.Abs(*m.Spearman) > 0.03 {
			t.Errorf("ratio %v: %+v, spearman %v", ratio, m, *m.Spearman)
		}
	}
}

// The rank of a value is one more than the number of smaller ones, plus half the number of others
// equal to it.
func TestMeanRanks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Map(rapid.IntRange(-4, 4),
			func(i int) float64 { return float64(i) / 3 })).Draw(t, "values")
		for i, rank := range meanRanks(values) {
			want := 0.5
			for _, v := range values {
				if v < values[i] {
					want++
				} else if v == values[i] {
					want += 0.5
				}
			}
			if rank != want {
				t.Fatalf("value %d of %v has rank %v, want %v", i, values, rank, want)
			}
		}
	})
}

func TestAgreementRefusals(t *testing.T) {
	good := scoresOf("a", 1, 2, 3)
	for name, c := range map[string]struct {
		b     criteria.Scores
		ratio float64
		code  fault.Code
	}{
		"ratio 0":   {good, 0, fault.Value},
		"ratio 1":   {good, 1, fault.Value},
		"ratio NaN": {good, math.NaN(), fault.Value},
		"layers":    {scoresOf("b", 1, 2), 0.5, fault.Layer},
		"NaN":       {scoresOf("b", 1, 2, math.NaN()), 0.5, fault.Nonfinite},
		"short":     {criteria.Scores{Layers: good.Layers, Score: []float64{1}}, 0.5, fault.Shape},
	} {
		_, err := Agreement(good, c.b, c.ratio)
		requireCode(t, name, err, c.code)
	}
	_, err := Agreement(scoresOf("b", 1, 2, math.Inf(1)), good, 0.5)
	requireCode(t, "first", err, fault.Nonfinite)
}

func BenchmarkAgreement(b *testing.B) {
	const units = 1_000_000
	s := [2]criteria.Scores{
		scoresOf("a", make([]float64, units)...), scoresOf("b", make([]float64, units)...),
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range units {
		s[0].Score[i], s[1].Score[i] = r.Float64(), r.Float64()
	}
	b.Run(fmt.Sprint(units, " units, all"), func(b *testing.B) {
		for b.Loop() {
			if _, err := Agreement(s[0], s[1], 0.5); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run(fmt.Sprint(units, " units, kept units and Jaccard"), func(b *testing.B) {
		for b.Loop() {
			first, _ := keep(s[0], 0.5)
			second, _ := keep(s[1], 0.5)
			_ = overlapOf(first[0], second[0]).jaccard()
		}
	})
	first, _ := keep(s[0], 0.5)
	second, _ := keep(s[1], 0.5)
	b.Run(fmt.Sprint(units, " units, Jaccard"), func(b *testing.B) {
		for b.Loop() {
			_ = overlapOf(first[0], second[0]).jaccard()
		}
	})
}
