package planning

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/fault"
)

// requireBest compares TopK at several numbers of workers with a stable sort.
func requireBest(t failer, scores []float64, k int) {
	t.Helper()
	want := newBitset(len(scores))
	for i, keep := range best(scores, k) {
		if keep {
			want.add(i)
		}
	}
	before := slices.Clone(scores)
	for _, workers := range []int{1, 2, 3, math.MaxInt} {
		got, err := TopK(scores, k, workers)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatal(fmt.Sprintf("%d of %d scores, %d workers: got %x, want %x", k, len(scores),
				workers, got, want))
		}
	}
	for i, bits := range before {
		if math.Float64bits(scores[i]) != math.Float64bits(bits) {
			t.Fatal("the scores were changed")
		}
	}
}

// Whatever the scores, signed zeros, infinities, subnormals and equal scores included: the k
// greatest, of equal ones the lower indices.
func TestTopKIsTheHeadOfAStableSort(t *testing.T) {
	special := []float64{
		0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), 5e-324, -5e-324, 1e-310,
		math.MaxFloat64, -math.MaxFloat64, 1, -1,
	}
	score := rapid.OneOf(rapid.SampledFrom(special), rapid.Float64(),
		rapid.Map(rapid.IntRange(-3, 3), func(i int) float64 { return float64(i) / 2 }))
	rapid.Check(t, func(t *rapid.T) {
		scores := rapid.SliceOfN(score, 0, 300).Draw(t, "scores")
		requireBest(t, scores, rapid.IntRange(0, len(scores)).Draw(t, "k"))
	})
}

// The same for sizes at which a sample brackets the k-th score, of random, equal, sorted and
// periodic scores.
func TestTopKOfManyScores(t *testing.T) {
	negativeZero := math.Copysign(0, -1)
	for name, score := range map[string]func(r *rand.Rand, i int) float64{
		"uniform": func(r *rand.Rand, _ int) float64 { return r.Float64() },
		"normal":  func(r *rand.Rand, _ int) float64 { return r.NormFloat64() },
		"range":   func(r *rand.Rand, _ int) float64 { return math.Exp(100 * r.NormFloat64()) },
		"few":     func(r *rand.Rand, _ int) float64 { return float64(r.IntN(4)) },
		"dead":    func(r *rand.Rand, _ int) float64 { return max(r.NormFloat64(), 0) },
		"equal":   func(*rand.Rand, int) float64 { return 3 },
		"zeros": func(r *rand.Rand, _ int) float64 {
			return []float64{0, negativeZero}[r.IntN(2)]
		},
		"infinite": func(r *rand.Rand, _ int) float64 {
			return []float64{math.Inf(1), 1, math.Inf(-1)}[r.IntN(3)]
		},
		"rising":   func(_ *rand.Rand, i int) float64 { return float64(i) },
		"falling":  func(_ *rand.Rand, i int) float64 { return -float64(i) },
		"periodic": func(_ *rand.Rand, i int) float64 { return float64(i % 64) },
	} {
		t.Run(name, func(t *testing.T) {
			const n = 20_011
			r := rand.New(rand.NewPCG(3, 4))
			scores := make([]float64, n)
			for i := range scores {
				scores[i] = score(r, i)
			}
			for _, k := range []int{0, 1, n / 4, n / 2, n - 1, n} {
				requireBest(t, scores, k)
			}
		})
	}
}

// Scores that differ exactly where the sample is taken make the bracket miss; the result is still
// correct.
func TestTopKWhenTheBracketMisses(t *testing.T) {
	const n, k = 10_000, 5_000
	r := rand.New(rand.NewPCG(5, 6))
	scores := make([]float64, n)
	for i := range scores {
		scores[i] = r.Float64()
	}
	generator := rand.New(rand.NewPCG(0, 0)) // as in bracketOf
	size := int(math.Pow(n, 2.0/3) / 3)
	for i := range size {
		scores[i*(n/size)+generator.IntN(n/size)] = 2 + r.Float64()
	}
	b := bracketOf(scores, k)
	if found := newBitset(n).split(scores, b, 1); b.low < 2 || k <= found.above+found.inside {
		t.Fatalf("the bracket %v does not miss: %d above, %d inside", b, found.above, found.inside)
	}
	requireBest(t, scores, k)
}

func TestTopKRefusals(t *testing.T) {
	many := make([]float64, 20_000)
	many[17_003], many[19_999] = math.NaN(), math.NaN()
	for name, c := range map[string]struct {
		scores     []float64
		k, workers int
		code       fault.Code
		says       string
	}{
		"k negative": {[]float64{1}, -1, 1, fault.Value, "the top -1 of 1 scores"},
		"k above n":  {[]float64{1}, 2, 1, fault.Value, "the top 2 of 1 scores"},
		"workers":    {[]float64{1}, 1, 0, fault.Value, "0 workers"},
		"NaN": {
			[]float64{1, math.NaN(), math.Inf(1)}, 1, 1, fault.Nonfinite, "score 1 is NaN",
		},
		"negative NaN": {
			[]float64{1, 2, math.Copysign(math.NaN(), -1)}, 0, 1, fault.Nonfinite, "score 2 is NaN",
		},
		"NaN in many": {many, 5_000, 3, fault.Nonfinite, "score 17003 is NaN"},
	} {
		top, err := TopK(c.scores, c.k, c.workers)
		if err == nil || fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) ||
			top != nil {
			t.Errorf("%s: got %v, %v", name, top, err)
		}
	}
}

// Any NaN is refused, wherever it stands and whatever k, and the first is named.
func TestTopKRefusesEveryNaN(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 63, 64, 65, 12_345}).Draw(t, "n")
		scores := make([]float64, n)
		for i := range scores {
			scores[i] = float64(i * 7 % 31)
		}
		first := rapid.IntRange(0, n-1).Draw(t, "first")
		scores[first], scores[rapid.IntRange(first, n-1).Draw(t, "other")] = math.NaN(), math.NaN()
		_, err := TopK(scores, rapid.IntRange(0, n).Draw(t, "k"),
			rapid.IntRange(1, 4).Draw(t, "workers"))
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("score %d is NaN", first)) {
			t.Fatalf("NaN at %d: got %v", first, err)
		}
	})
}

func BenchmarkTopK(b *testing.B) {
	for _, n := range []int{768, 1_000_000, 10_000_000} {
		r := rand.New(rand.NewPCG(1, 2))
		scores := make([]float64, n)
		for i := range scores {
			scores[i] = r.Float64()
		}
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%d scores, %d workers", n, workers), func(b *testing.B) {
				for b.Loop() {
					if _, err := TopK(scores, n/4, workers); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
