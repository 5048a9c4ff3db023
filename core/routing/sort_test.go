package routing

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A packed sample unpacks to its parts, and packed samples sort as their priors do.
func TestSamplesPack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Float32().Draw(t, "a"), rapid.Float32().Draw(t, "b")
		light, heavy := rapid.Bool().Draw(t, "light"), rapid.Bool().Draw(t, "heavy")
		escalated := rapid.Bool().Draw(t, "escalated")
		s := newSample(a, light, heavy, escalated)
		if s.prior() != a || s.light() == 1 != light || s.heavy() == 1 != heavy ||
			s.escalated() == 1 != escalated {
			t.Fatalf("%v, %v, %v, %v became %v, %d, %d, %d", a, light, heavy, escalated, s.prior(),
				s.light(), s.heavy(), s.escalated())
		}
		if other := newSample(b, light, heavy, escalated); a < b && s.key() >= other.key() ||
			a == b && s.key() != other.key() {
			t.Fatalf("%v and %v sort as %d and %d", a, b, s.key(), other.key())
		}
	})
	negative := newSample(float32(math.Copysign(0, -1)), true, false, true)
	if negative != newSample(0, true, false, true) {
		t.Fatal("-0 is not 0")
	}
}

// The sort is stable and the same for any number of workers and samples.
func TestSortedSorts(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, n := range []int{1, 2, 1000, parallel + 17} {
		o := Outcomes{
			Prior: make([]float32, n), LightCorrect: make([]bool, n), HeavyCorrect: make([]bool, n),
		}
		want := make([]sample, n)
		for i := range n {
			o.Prior[i] = float32(r.NormFloat64()) * float32(math.Exp2(float64(r.IntN(60)-30)))
			o.LightCorrect[i], o.HeavyCorrect[i] = r.IntN(2) == 0, r.IntN(2) == 0
			want[i] = newSample(o.Prior[i], o.LightCorrect[i], o.HeavyCorrect[i], o.HeavyCorrect[i])
		}
		slices.SortStableFunc(want, func(a, b sample) int {
			return int(int64(a.key()) - int64(b.key()))
		})
		for _, workers := range []int{1, 2, 3, 8} {
			before := runtime.GOMAXPROCS(workers)
			got := o.sorted()
			runtime.GOMAXPROCS(before)
			if !slices.Equal(got, want) {
				t.Fatalf("%d samples, %d workers: not sorted, or not stable", n, workers)
			}
		}
	}
}
