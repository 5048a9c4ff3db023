package routing

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// Keys are ordered as priors are, and lead back to them; -0 is 0.
func TestKeysAreOrderedAsPriors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Float32().Draw(t, "a"), rapid.Float32().Draw(t, "b")
		if priorOf(keyOf(a)) != a {
			t.Fatalf("%v became %v", a, priorOf(keyOf(a)))
		}
		if a < b && keyOf(a) >= keyOf(b) || a == b && keyOf(a) != keyOf(b) {
			t.Fatalf("%v and %v have the keys %d and %d", a, b, keyOf(a), keyOf(b))
		}
	})
	if negative := float32(math.Copysign(0, -1)); keyOf(negative) != keyOf(0) {
		t.Fatal("-0 is not 0")
	}
}

// sortedRuns is the definition of the runs: all samples sorted by their priors.
func sortedRuns(o Outcomes) (runs []run) {
	order := []int{}
	for i := range o.Prior {
		if o.flags().keeps(i) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(o.Prior[i], o.Prior[j]) })
	for k, i := range order {
		if k == 0 || o.Prior[i] != o.Prior[order[k-1]] {
			runs = append(runs, run{prior: o.Prior[i] + 0})
		}
		here, escalated := &runs[len(runs)-1].tally, o.escalatedCorrect()
		one := func(yes bool) int64 { return int64(bit(yes)) }
		here.samples++
		here.light += one(o.LightCorrect.At(i))
		here.escalated += one(escalated.At(i))
		here.losses += one(o.HeavyCorrect.At(i) && !o.LightCorrect.At(i)) -
			one(o.HeavyCorrect.At(i) && !escalated.At(i))
	}
	return runs
}

// priorsOf are distributions of priors, spread and crowded, with equal priors and without.
func priorsOf(r *rand.Rand) map[string]func() float64 {
	return map[string]func() float64{
		"even":     func() float64 { return r.Float64() },
		"negative": func() float64 { return r.NormFloat64() * math.Exp2(float64(r.IntN(20)-10)) },
		"near one": func() float64 { return 1 - math.Exp(-20*r.Float64()) },
		"equal":    func() float64 { return float64(r.IntN(3000)) / 3000 },
		"one":      func() float64 { return 0.5 },
		"zeros":    func() float64 { return math.Copysign(0, r.Float64()-0.5) },
		"few":      func() float64 { return float64(r.IntN(20)) },
		"tiny":     func() float64 { return r.NormFloat64() * 1e-40 },
		"any":      func() float64 { return float64(anyFloat32(r)) },
		"crowded": func() float64 {
			return map[bool]float64{
				true: 0.75 + r.Float64()/(1<<20), false: r.Float64(),
			}[r.IntN(50) > 0]
		},
		"outlier": func() float64 {
			return map[bool]float64{true: 0.9 + r.Float64()/(1<<10), false: -1e30}[r.IntN(500) > 0]
		},
	}
}

func anyFloat32(r *rand.Rand) float32 {
	for {
		if x := math.Float32frombits(r.Uint32()); x-x == 0 {
			return x
		}
	}
}

// fewGathered lowers the number of samples that are sorted at a time, and so leads small tests
// through every path of a large one.
func fewGathered(t *testing.T, samples int) {
	before := gatherable
	gatherable = samples
	t.Cleanup(func() { gatherable = before })
}

// drawn are n outcomes with priors of a distribution; those of every third index may be left out.
func drawn(r *rand.Rand, n int, prior func() float64, all bool) Outcomes {
	o := combinedOutcomes(r, n, 2)
	for i := range n {
		o.Prior[i] = float32(prior())
	}
	if !all {
		o = o.only(BitsOf(n, func(i int) bool { return i%3 < 2 }))
	}
	return o
}

// The runs are those of all samples sorted, up and down, however few samples are sorted at a time
// and by any number of workers.
func TestRunsAreThoseOfSortedSamples(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for name, prior := range priorsOf(r) {
		for _, n := range []int{1, 2, 5, 100, 3000, parallel + 17} {
			o := drawn(r, n, prior, n%2 == 0)
			want := sortedRuns(o)
			backwards := slices.Clone(want)
			slices.Reverse(backwards)
			for _, size := range []int{1 << 30, 1000, 50, 1} {
				if n/size > 200 { // a pass over the samples for every few of them
					continue
				}
				fewGathered(t, size)
				for _, workers := range []int{1, 3} {
					before := runtime.GOMAXPROCS(workers)
					up, down := slices.Collect(o.ascending()), slices.Collect(o.descending())
					runtime.GOMAXPROCS(before)
					if !slices.Equal(up, want) || !slices.Equal(down, backwards) {
						t.Fatalf("%s, %d samples, %d at a time, %d workers: other runs", name, n,
							size, workers)
					}
				}
			}
		}
	}
}

// A walk may end early.
func TestRunsEndWhereTheyAreLeft(t *testing.T) {
	o := randomOutcomes(rand.New(rand.NewPCG(3, 4)), 500, 1<<20)
	want := sortedRuns(o)
	for _, size := range []int{1 << 30, 20, 1} {
		fewGathered(t, size)
		for _, stop := range []int{1, 7, 499} {
			var got []run
			for r := range o.ascending() {
				if got = append(got, r); len(got) == stop {
					break
				}
			}
			if !slices.Equal(got, want[:stop]) {
				t.Fatalf("%d at a time: the first %d runs are others", size, stop)
			}
		}
	}
}

// The cuts of a thinned curve are those of all samples sorted.
func TestCutsAreThoseOfSortedSamples(t *testing.T) {
	r := rand.New(rand.NewPCG(71, 72))
	for name, prior := range priorsOf(r) {
		for _, n := range []int{1, 40, 2000, 20_000} {
			o := drawn(r, n, prior, n%40 == 0)
			runs := sortedRuns(o)
			for _, points := range []int{2, 3, 17, 50, 1000, 100_000} {
				for _, size := range []int{1 << 30, 500} {
					fewGathered(t, size)
					wanted := points
					if len(runs) < points {
						wanted = n + 1
					}
					light := o.count(o.LightCorrect)
					want := thinned(slices.Values(runs), o.samples(), light, wanted)
					if got := o.cuts(points); !slices.Equal(got, want) {
						t.Fatalf("%s, %d samples, %d points: got\n%v, want\n%v", name, n, points,
							got, want)
					}
				}
			}
		}
	}
}

// What a walk allocates is less than a copy of the samples would take.
func TestWalksCopyNoSamples(t *testing.T) {
	const n = 1 << 20
	o := randomOutcomes(rand.New(rand.NewPCG(5, 6)), n, 1<<22)
	fewGathered(t, 1<<16)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // each has a table of its own
	cost := Cost{Light: 1, Heavy: 2, Unit: MACs}
	for name, walk := range map[string]func() error{
		"calibrate": func() error { _, err := Calibrate(o, 0.005, 0.95); return err },
		"escalation": func() error {
			_, err := CalibrateEscalation(o, 0.9, 0.95)
			return err
		},
		"quality": func() error { o.quality("p"); return nil },
		"curve":   func() error { _, err := Curve(o, cost, 100); return err },
		"oracle":  func() error { _, err := Oracle(o, cost); return err },
		"a part": func() error {
			_, err := Calibrate(o.only(BitsOf(n, Chooses)), 0.005, 0.95)
			return err
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := walk(); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 8*n {
			t.Errorf("%s of %d samples allocates %d bytes", name, n, bytes)
		}
	}
}

// The runs of more samples than are sorted at a time are those of all samples sorted, for as many
// distributions as AGFLOW_TRIALS says.
func TestRunsOfManySamples(t *testing.T) {
	skipSlow(t)
	trials, err := strconv.Atoi(os.Getenv("AGFLOW_TRIALS"))
	if err != nil {
		trials = 2
	}
	r := rand.New(rand.NewPCG(17, 18))
	distributions := priorsOf(r)
	names := slices.Sorted(maps.Keys(distributions))
	for trial := range trials {
		name := names[trial%len(names)]
		o := drawn(r, gatherable+gatherable/4, distributions[name], trial%2 == 0)
		want := sortedRuns(o)
		if !slices.Equal(slices.Collect(o.ascending()), want) {
			t.Errorf("%s: other runs", name)
		}
		slices.Reverse(want)
		if !slices.Equal(slices.Collect(o.descending()), want) {
			t.Errorf("%s: other runs, downwards", name)
		}
	}
	t.Logf("%d distributions of %d samples", trials, gatherable+gatherable/4)
}
