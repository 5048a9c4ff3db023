package monitor

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Greater priors have no lower bin, and every float32 has a bin.
func TestBinsAreOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Float32().Draw(t, "a")
		b := rapid.OneOf(rapid.Float32(), rapid.Float32Range(-1, 2)).Draw(t, "b")
		if math.IsNaN(float64(a)) || math.IsNaN(float64(b)) {
			return
		}
		low, high := binOf(min(a, b)), binOf(max(a, b))
		if low > high || low < 0 || high >= binCount {
			t.Fatalf("%v and %v have the bins %d and %d of %d", a, b, low, high, binCount)
		}
	})
}

// Priors a hundredth of their distance to the nearest of 0 and 1 apart are told from each other.
func TestBinsTellPriorsApart(t *testing.T) {
	for x := 1e-6; x < 0.45; x *= 1.02 {
		if binOf(float32(x)) >= binOf(float32(1.02*x)) ||
			binOf(float32(-x)) <= binOf(float32(-1.02*x)) ||
			binOf(float32(1-x)) <= binOf(float32(1-1.02*x)) && x > 1e-5 {
			t.Fatalf("%v and %v have one bin", x, 1.02*x)
		}
	}
}

func TestRanksCount(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	r, counts, all := &ranks{}, map[int]int64{}, []int{}
	for range 3000 {
		bin := binOf(float32(random.NormFloat64()))
		r.add(bin)
		counts[bin]++
		all = append(all, bin)
	}
	slices.Sort(all)
	again := &ranks{}
	again.fill(counts)
	if *again != *r {
		t.Fatal("filled at once, the tree is another")
	}
	for bin := range binCount {
		if want, _ := slices.BinarySearch(all, bin); r.below(bin) != int64(want) {
			t.Fatalf("%d priors below bin %d, got %d", want, bin, r.below(bin))
		}
	}
}

// Ranks of exchangeable priors are uniform, with many ties, too.
func TestRanksAreUniform(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, distinct := range []int{1, 3, 1 << 20} {
		const lives, buckets = 1000, 10
		var seen [buckets]int
		for range lives {
			r := &ranks{}
			draw := func() int { return binOf(float32(random.IntN(distinct))) }
			for range 7 {
				r.add(draw())
			}
			seen[int(buckets*r.smoothed(draw(), random.Float64()))]++
		}
		chi := 0.0
		for _, n := range seen {
			chi += math.Pow(float64(n)-lives/buckets, 2) / (lives / buckets)
		}
		if chi > 27.9 { // one in a thousand with 9 degrees of freedom
			t.Errorf("%d distinct priors: %v", distinct, seen)
		}
	}
}
