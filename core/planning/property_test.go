package planning

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/statistics"
)

// Whatever the model and the request: multiples of round_to, whole heads, floors, the best units of
// each layer, correct figures, and a budget that holds unless the floors alone exceed it.
func TestEveryPlanIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScores(t, 5)
		widths := drawWidths(t, s)
		r := drawBudget(t, s, drawRequest(t))
		p, rep := solveWith(t, s, widths, r)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		offsets := statistics.Offsets(s.Layers)
		macs := s.Model.MACs
		atFloor := true
		for i, l := range s.Layers {
			keep := p.Keep[offsets[i]:offsets[i+1]]
			kept := rep.Layers[i].Kept
			step := stepUnits(l, max(r.RoundTo, 1))
			if kept < step || kept > l.Units || kept%step != 0 {
				t.Fatalf("layer %d keeps %d of %d units in steps of %d", i, kept, l.Units, step)
			}
			if !slices.Equal(keep, best(s.Score[offsets[i]:offsets[i+1]], kept)) {
				t.Fatalf("layer %d does not keep its %d best units", i, kept)
			}
			atFloor = atFloor && kept == step
			macs -= int64(l.Units-kept) * l.UnitMACs
			if r.PruningRatio > 0 && widths == nil && kept > step &&
				float64(kept) > (1-r.PruningRatio)*float64(l.Units)+1e-9 {
				t.Fatalf("layer %d keeps %d of %d at ratio %v", i, kept, l.Units, r.PruningRatio)
			}
		}
		if rep.MACs != macs || rep.DenseMACs != s.Model.MACs ||
			rep.MACsRatio != float64(macs)/float64(s.Model.MACs) {
			t.Fatalf("the report says %d of %d MACs (%v), the plan has %d", rep.MACs, rep.DenseMACs,
				rep.MACsRatio, macs)
		}
		if r.MACs != "" && (float64(macs) > rep.Budget || rep.Miss > 0) {
			t.Fatalf("%d MACs exceed the budget of %v; miss %v", macs, rep.Budget, rep.Miss)
		}
		if r.PruningRatio > 0 && rep.Miss < -1e-9 && widths == nil &&
			!slices.ContainsFunc(rep.Layers, func(l LayerReport) bool {
				return l.Kept <= max(r.RoundTo, 1)
			}) {
			t.Fatalf("ratio %v is missed by %v without a layer at its floor", r.PruningRatio,
				rep.Miss)
		}
		if math.IsNaN(rep.KeptUtility) || rep.KeptUtility < 0 || rep.KeptUtility > 1+1e-12 {
			t.Fatalf("kept utility is %v", rep.KeptUtility)
		}
	})
}

// A plan ends less than one step below its MACs, unless it keeps every whole step.
func TestMACsAreUsedUpToOneStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScores(t, 5)
		r := drawRequest(t)
		r.MACs = fmt.Sprint(s.Model.MACs)
		widths := drawWidths(t, s)
		full, _ := solveWith(t, s, widths, r)
		r = drawBudget(t, s, Request{RoundTo: r.RoundTo})
		if r.MACs == "" {
			t.Skip("by ratio")
		}
		p, rep := solveWith(t, s, widths, r)
		greatest := int64(0)
		for _, l := range s.Layers {
			greatest = max(greatest, int64(stepUnits(l, max(r.RoundTo, 1)))*l.UnitMACs)
		}
		if !slices.Equal(p.Keep, full.Keep) && rep.Budget-float64(rep.MACs) >= float64(greatest) {
			t.Fatalf("%d MACs of %v although a step has %d at most", rep.MACs, rep.Budget, greatest)
		}
	})
}

// A bigger budget keeps everything that a smaller one keeps.
func TestABiggerBudgetKeepsASuperset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScores(t, 5)
		r := drawRequest(t)
		small := drawBudget(t, s, r)
		big := small
		if small.MACs == "" {
			big.PruningRatio = small.PruningRatio * rapid.Float64Range(0.01, 1).Draw(t, "less")
		} else {
			macs, err := strconv.ParseInt(small.MACs, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			more := rapid.Int64Range(0, 200).Draw(t, "more")
			big.MACs = fmt.Sprint(min(macs+more, s.Model.MACs))
		}
		widths := drawWidths(t, s)
		less, _ := solveWith(t, s, widths, small)
		more, _ := solveWith(t, s, widths, big)
		for u := range less.Keep {
			if less.Keep[u] && !more.Keep[u] {
				t.Fatalf("%s is kept at %+v and not at %+v", statistics.UnitName(s.Layers, u),
					small, big)
			}
		}
	})
}

// With widths, and where no floor applies, no layer of a group loses a unit of greater normalised
// importance than the last one that another layer keeps.
func TestWidthsRankAGroupAsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScores(t, 1)
		widths := drawWidths(t, s)
		if widths == nil {
			widths = &s // by its own scores
		}
		r := Request{PruningRatio: rapid.Float64Range(0.01, 0.99).Draw(t, "ratio")}
		p, rep := solveWith(t, s, widths, r)
		if p.Request.Widths != widths.Criterion {
			t.Fatalf("the plan says widths by %q", p.Request.Widths)
		}
		offsets := statistics.Offsets(s.Layers)
		for _, group := range groupsOf(s.Layers) {
			units, kept, floors := 0, 0, 0
			lowestKept, highestGone := math.Inf(1), math.Inf(-1)
			for i, l := range s.Layers {
				if l.Group != group {
					continue
				}
				stays := rep.Layers[i].Kept
				units, kept, floors = units+l.Units, kept+stays, floors+1
				importance := fallingImportance(widths.Score[offsets[i]:offsets[i+1]])
				if stays < l.Units {
					highestGone = max(highestGone, importance[stays])
				}
				if stays > 1 { // the one unit of a layer at its floor may be worse
					lowestKept = min(lowestKept, importance[stays-1])
				}
			}
			if lowestKept < highestGone-1e-12 {
				t.Fatalf("group %s keeps a unit of %v and loses one of %v", group, lowestKept,
					highestGone)
			}
			want := max(units-int(math.Ceil(r.PruningRatio*float64(units)-1e-9)), floors)
			if kept != want {
				t.Fatalf("group %s keeps %d of %d units at ratio %v, want %d", group, kept, units,
					r.PruningRatio, want)
			}
		}
	})
}

// fallingImportance is the definition of normalised importance: falling, mean 1, or zeros.
func fallingImportance(scores []float64) []float64 {
	importance, total := slices.Clone(scores), 0.0
	slices.Sort(importance)
	slices.Reverse(importance)
	for _, s := range importance {
		total += s
	}
	for i := range importance {
		if total > 0 {
			importance[i] *= float64(len(importance)) / total
		}
	}
	return importance
}

// Ignored layers and groups that were not requested stay dense; equal input gives the equal plan
// and is not changed.
func TestUnselectedLayersStayDense(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScores(t, 5)
		r := drawRequest(t)
		r.PruningRatio = rapid.Float64Range(0.01, 0.99).Draw(t, "ratio")
		if rapid.Bool().Draw(t, "one group") {
			r.Groups = []string{
				s.Layers[rapid.IntRange(0, len(s.Layers)-1).Draw(t, "its layer")].Group,
			}
		}
		for _, l := range s.Layers[1:] {
			if rapid.Bool().Draw(t, "ignore") {
				r.IgnoredLayers = append(r.IgnoredLayers, l.Name)
			}
		}
		before := append([]float64{}, s.Score...)
		widths := drawWidths(t, s)
		p, rep, err := solveMaybe(s, widths, r)
		if err != nil {
			t.Skip("nothing left to prune")
		}
		for i, l := range s.Layers {
			unasked := len(r.Groups) > 0 && r.Groups[0] != l.Group
			if (unasked || slices.Contains(r.IgnoredLayers, l.Name)) &&
				rep.Layers[i].Kept != l.Units {
				t.Fatalf("layer %s keeps %d of %d", l.Name, rep.Layers[i].Kept, l.Units)
			}
		}
		again, repAgain := solveWith(t, s, widths, r)
		if !reflect.DeepEqual(p, again) || !reflect.DeepEqual(rep, repAgain) ||
			!slices.Equal(before, s.Score) {
			t.Fatal("a second call gave another plan, or the scores were changed")
		}
	})
}

// No request text and no numbers make Solve panic, and a plan that it returns is sound.
func TestNoRequestPanics(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScores(t, 1)
		s.Model.MACs = rapid.Int64().Draw(t, "model MACs")
		s.Layers[0].UnitMACs = rapid.Int64().Draw(t, "unit MACs")
		for u := range s.Score {
			s.Score[u] = rapid.Float64().Draw(t, "score")
		}
		amounts := []string{
			"0.5", "1", "5", "3G", "nan", "inf", "-1", "1e400", "G", "0x1p-2", "9e18",
			"9223372036854775807",
		}
		r := Request{
			PruningRatio: rapid.OneOf(rapid.Just(0.0), rapid.Float64()).Draw(t, "ratio"),
			MACs: rapid.OneOf(
				rapid.Just(""), rapid.SampledFrom(amounts), rapid.String(),
			).Draw(t, "macs"),
			RoundTo: rapid.OneOf(rapid.IntRange(-1, 6), rapid.Int()).Draw(t, "round_to"),
			Groups:  rapid.SampledFrom([][]string{nil, {"mlp"}, {"convs"}}).Draw(t, "groups"),
		}
		if rapid.Bool().Draw(t, "ignore") {
			r.IgnoredLayers = []string{rapid.String().Draw(t, "pattern")}
		}
		p, _, err := solveMaybe(s, drawWidths(t, s), r)
		if err == nil {
			err = p.Validate()
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}
