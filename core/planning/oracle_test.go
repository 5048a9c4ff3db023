package planning

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/criteria"
	"agflow/core/statistics"
)

// oracle plans by the definition: it lists every step, sorts all steps, and takes one after another
// while they fit.
type oracle struct {
	model  wholeViT
	scores criteria.Scores
	widths []float64
	r      Request
	prices pricing
	goal   budget
}

type oracleStep struct {
	layer              int
	value, share, gain float64
}

// cost is the budget's quantity: MACs and parameters of the pruned model, or its latency.
func (o oracle) cost(kept []int) float64 {
	switch o.goal.name {
	case "macs":
		return float64(o.model.cut(kept).price().MACs)
	case "params":
		return float64(o.model.cut(kept).price().Params)
	}
	return o.prices.latency(kept)
}

// steps lists a layer's steps above its floor, best first.
func (o oracle) steps(at, floor int) []oracleStep {
	l, offset := o.scores.Layers[at], statistics.Offsets(o.scores.Layers)[at]
	size, per := stepUnits(l, o.r.RoundTo), l.Units/l.Parts
	var scores, widths [][]float64 // of each part, falling
	for part := range l.Parts {
		for column, into := range map[*[]float64]*[][]float64{
			&o.scores.Score: &scores, &o.widths: &widths,
		} {
			values := slices.Clone((*column)[offset+part*per:][:per])
			slices.SortFunc(values, func(a, b float64) int { return cmp.Compare(b, a) })
			*into = append(*into, values)
		}
	}
	step := func(of [][]float64, first int, unit float64) float64 {
		total := 0.0
		for place := first / l.Parts; place < (first+size)/l.Parts; place++ {
			for _, part := range of {
				total += part[place] * unit
			}
		}
		return total
	}
	divided := func(a, b float64) float64 {
		if b == 0 {
			return math.Inf(1)
		}
		return a / b
	}
	cost := o.goal.unitCost(o.scores.Layers, at)
	var steps []oracleStep
	for first := floor; first+size <= l.Units; first += size {
		s := oracleStep{
			layer: at,
			gain:  divided(step(scores, first, 1)*o.unit(o.scores.Score, at), float64(size)*cost),
		}
		if o.r.Joint || o.r.Widths != Uniform || l.MayVanish {
			s.value = step(widths, first, o.unit(o.widths, at)) / float64(size)
		}
		if o.r.Joint {
			s.value = divided(s.value/float64(l.Units), cost/o.goal.dense)
		} else if o.r.Widths != Uniform && o.unequal(l.Group) {
			s.value = divided(s.value/float64(l.Units), cost)
		}
		steps = append(steps, s)
	}
	return steps
}

// unequal reports whether the units of a group's layers, none of which goes whole, differ in cost.
func (o oracle) unequal(group string) bool {
	least, greatest := math.Inf(1), 0.0
	for i, l := range o.scores.Layers {
		if l.Group != group {
			continue
		}
		if l.MayVanish && l.Units == 1 {
			return false
		}
		cost := o.goal.unitCost(o.scores.Layers, i)
		least, greatest = min(least, cost), max(greatest, cost)
	}
	return greatest > 1.1*least
}

func (o oracle) plan() (kept []int) {
	order, kept := o.order()
	for _, s := range order {
		if o.goal.byShare() && s.share > o.goal.limit+slack {
			break
		}
		kept[s.layer] += stepUnits(o.scores.Layers[s.layer], o.r.RoundTo)
		if !o.goal.byShare() && o.cost(kept) > o.goal.limit {
			kept[s.layer] -= stepUnits(o.scores.Layers[s.layer], o.r.RoundTo)
			break
		}
	}
	return kept
}

// order returns all steps in the order in which they are taken, and the units kept before the
// first.
func (o oracle) order() (order []oracleStep, kept []int) {
	kept = denseUnits(o.scores.Layers)
	schedules := map[string][]oracleStep{}
	units, floors := map[string]int{}, map[string]int{}
	for i, l := range o.scores.Layers {
		floor, err := floorUnits(l, o.r)
		if err != nil {
			panic(err)
		}
		name := l.Name
		if o.r.Joint {
			name = "all"
		} else if o.r.Widths != Uniform || l.MayVanish {
			name = "group " + l.Group
		}
		kept[i] = floor
		units[name], floors[name] = units[name]+l.Units, floors[name]+floor
		schedules[name] = append(schedules[name], o.steps(i, floor)...)
	}
	for name, steps := range schedules {
		slices.SortStableFunc(steps, func(a, b oracleStep) int {
			if a.value != b.value {
				return cmp.Compare(b.value, a.value)
			}
			return cmp.Compare(a.layer, b.layer)
		})
		stays := floors[name]
		for i := range steps {
			stays += stepUnits(o.scores.Layers[steps[i].layer], o.r.RoundTo)
			steps[i].share = float64(stays) / float64(units[name])
		}
		order = append(order, steps...)
	}
	if !o.r.Joint {
		slices.SortStableFunc(order, func(a, b oracleStep) int {
			return cmp.Or(cmp.Compare(a.share, b.share), cmp.Compare(b.gain, a.gain),
				cmp.Compare(a.layer, b.layer))
		})
	}
	return order, kept
}

// unit turns a layer's values into multiples of their mean, those of a branch into multiples of the
// mean of all branches.
func (o oracle) unit(values []float64, at int) float64 {
	offsets := statistics.Offsets(o.scores.Layers)
	if !whole(o.scores.Layers[at]) {
		return importanceScale(values[offsets[at]:offsets[at+1]])
	}
	var blocks []float64
	for i, l := range o.scores.Layers {
		if whole(l) {
			blocks = append(blocks, values[offsets[i]])
		}
	}
	return importanceScale(blocks)
}

// drawWhole draws a whole model with a request that can be met, of any budget.
func drawWhole(t *rapid.T) (wholeViT, Input, Request) {
	m := drawViT(t)
	in := Input{Scores: m.scores(t), Latency: m.latencies()}
	if rapid.Bool().Draw(t, "widths") {
		widths := in.Scores
		widths.Criterion, widths.Score = "variance", m.scores(t).Score
		in.Widths = &widths
	}
	most := 1
	for _, l := range in.Scores.Layers {
		if l.Rounds {
			most = max(most, min(16, l.Units/l.Parts))
		}
	}
	r := Request{
		RoundTo: rapid.IntRange(1, most).Draw(t, "round_to"), Joint: rapid.Bool().Draw(t, "joint"),
	}
	if r.RoundTo == 1 {
		r.Floor = rapid.SampledFrom([]float64{0, 0.25, 0.5, 0.9}).Draw(t, "floor")
	}
	return m, in, drawLimit(t, in, r)
}

// drawLimit draws a budget between the least and a little above the dense model.
func drawLimit(t *rapid.T, in Input, r Request) Request {
	s := in.Scores
	prices, err := pricingOf(s.Model, s.Layers, s.Metadata, in.Latency)
	if err != nil {
		t.Fatal(err)
	}
	floor := make([]int, len(s.Layers))
	for i, l := range s.Layers {
		if floor[i], err = floorUnits(l, r); err != nil {
			t.Fatal(err)
		}
	}
	least, dense := prices.of(floor), prices.of(denseUnits(s.Layers))
	between := func(least, dense int64) string {
		return fmt.Sprint(rapid.Int64Range(min(max(least, 2), dense), dense).Draw(t, "limit"))
	}
	switch rapid.IntRange(0, 3).Draw(t, "budget") {
	case 0:
		r.MACs = between(least.MACs, dense.MACs)
	case 1:
		r.Params = between(least.Params, dense.Params)
	case 2:
		r.LatencyMS = rapid.Float64Range(least.LatencyMS, dense.LatencyMS*1.01).Draw(t, "ms")
	default:
		r.PruningRatio = rapid.Float64Range(0.01, 0.99).Draw(t, "ratio")
	}
	return r
}

// Whatever the model, the scores and the request, the plan is the one of the definition.
func TestPlansAreThoseOfTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, in, r := drawWhole(t)
		p, rep, err := Solve(in, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		s := in.Scores
		prices, err := pricingOf(s.Model, s.Layers, s.Metadata, in.Latency)
		if err != nil {
			t.Fatal(err)
		}
		goal, err := budgetOf(r, prices, prices.of(denseUnits(s.Layers)))
		if err != nil {
			t.Fatal(err)
		}
		r.Widths = p.Request.Widths
		o := oracle{model: m, scores: s, widths: s.Score, r: r, prices: prices, goal: goal}
		if in.Widths != nil {
			o.widths = in.Widths.Score
		}
		want := o.plan()
		if !slices.Equal(keptOf(rep), want) {
			t.Fatalf("%+v: kept %v, want %v", r, keptOf(rep), want)
		}
		offsets := statistics.Offsets(s.Layers)
		for i, l := range s.Layers {
			for part, size := 0, l.Units/l.Parts; part < l.Parts; part++ {
				first := offsets[i] + part*size
				keep := best(s.Score[first:first+size], want[i]/l.Parts)
				if !slices.Equal(keep, p.Keep[first:first+size]) {
					t.Fatalf("part %d of layer %q does not keep its %d best units", part, l.Name,
						want[i]/l.Parts)
				}
			}
		}
		price := m.cut(want).price()
		price.LatencyMS = prices.latency(want)
		if p.Planned != price || rep.MACs != price.MACs || rep.Params != price.Params ||
			rep.LatencyMS != price.LatencyMS {
			t.Fatalf("the plan says %+v and the report %+v, want %+v", p.Planned, rep, price)
		}
		if r.PruningRatio == 0 && rep.Miss > 0 {
			t.Fatalf("the budget is exceeded by %v", rep.Miss)
		}
	})
}

// A bigger budget of any kind keeps everything that a smaller one keeps, and the same request gives
// the same plan.
func TestABiggerBudgetOfAnyKindKeepsASuperset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, in, small := drawWhole(t)
		big := small
		more := rapid.Float64Range(0, 1).Draw(t, "more")
		switch {
		case small.MACs != "":
			big.MACs = larger(small.MACs, more, in.Scores.Model.MACs)
		case small.Params != "":
			big.Params = larger(small.Params, more, in.Scores.Model.Params)
		case small.LatencyMS > 0:
			big.LatencyMS *= 1 + more
		default:
			big.PruningRatio *= 1 - more/1.01
		}
		less, _, err := Solve(in, small)
		if err != nil {
			t.Fatal(err)
		}
		greater, _, err := Solve(in, big)
		if err != nil {
			t.Fatal(err)
		}
		for u := range less.Keep {
			if less.Keep[u] && !greater.Keep[u] {
				t.Fatalf("%s is kept at %+v and not at %+v",
					statistics.UnitName(in.Scores.Layers, u), small, big)
			}
		}
		if again, _, err := Solve(in, small); err != nil || !slices.Equal(again.Keep, less.Keep) {
			t.Fatalf("a second call gave another plan, %v", err)
		}
	})
}

func larger(amount string, more float64, dense int64) string {
	var n int64
	_, _ = fmt.Sscan(amount, &n)
	return fmt.Sprint(min(n+int64(more*float64(n)), max(n, dense)))
}
