package diagnostics

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"agflow/core/fault"
)

// upTo returns the numbers 0 to n-1.
func upTo(n int) []int64 {
	numbers := make([]int64, n)
	for i := range numbers {
		numbers[i] = int64(i)
	}
	return numbers
}

func TestVerdictsByHand(t *testing.T) {
	for name, c := range map[string]struct {
		correct    int64
		random     []int64
		confidence float64
		verdict    string
		p          float64
		needed     int64
	}{
		"best of 20":       {90, upTo(19), 0.95, Better, 0.05, 19},
		"tied for best":    {18, upTo(19), 0.95, NotDistinguishable, 0.1, 19},
		"second of 20":     {17, upTo(19), 0.95, NotDistinguishable, 0.15, 19},
		"second of 40":     {38, upTo(39), 0.95, Better, 0.05, 19}, // one random draw is as good
		"worst":            {0, upTo(19), 0.95, NotDistinguishable, 1, 19},
		"best of 19":       {90, upTo(18), 0.95, InsufficientDraws, 1.0 / 19, 19},
		"best of 10":       {90, upTo(9), 0.9, Better, 0.1, 9},
		"best of 100":      {99, upTo(99), 0.99, Better, 0.01, 99},
		"best of 99":       {99, upTo(98), 0.99, InsufficientDraws, 1.0 / 99, 99},
		"one draw":         {9, upTo(1), 0.5, Better, 0.5, 1},
		"one draw, strict": {9, upTo(1), 0.95, InsufficientDraws, 0.5, 19},
	} {
		v, err := AgainstRandom(TrialRequest{
			Images: 100, Correct: c.correct, RandomCorrect: c.random, Confidence: c.confidence,
		})
		if err != nil {
			t.Fatal(err)
		}
		if v.Verdict != c.verdict || v.PValue != c.p || v.NeededDraws != c.needed ||
			v.Draws != len(c.random) || v.Confidence != c.confidence {
			t.Errorf("%s: got %+v", name, v)
		}
		n := float64(len(c.random))
		if v.Accuracy != float64(c.correct)/100 || math.Abs(v.RandomMean-(n-1)/200) > 1e-15 ||
			v.RandomMin != 0 || v.RandomMax != (n-1)/100 {
			t.Errorf("%s: got %+v", name, v)
		}
	}
}

// If the criterion is one more random draw, each rank among distinct results is equally likely: the
// share of ranks whose verdict is Better never exceeds 1 - confidence, and reaches it where the
// number of draws permits.
func TestTheTestIsExact(t *testing.T) {
	for _, c := range []struct {
		draws      int
		confidence float64
		better     int
	}{{19, 0.95, 1}, {99, 0.95, 5}, {100, 0.95, 5}, {99, 0.99, 1}, {
		50, 0.99, 0,
	}, {9, 0.9, 1}, {29, 0.9, 3}} {
		results := upTo(c.draws + 1)
		better := 0
		for place, correct := range results {
			others := slices.Delete(slices.Clone(results), place, place+1)
			v, err := AgainstRandom(TrialRequest{
				Images: 1000, Correct: correct, RandomCorrect: others, Confidence: c.confidence,
			})
			if err != nil {
				t.Fatal(err)
			}
			if v.Verdict == Better {
				better++
			}
		}
		if better != c.better {
			t.Errorf("%d draws at %v: %d of %d places are better, want %d", c.draws, c.confidence,
				better, c.draws+1, c.better)
		}
	}
}

// NeededDraws is enough for the best possible result to be better, and one less is not.
func TestNeededDrawsIsTheLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		confidence := rapid.OneOf(rapid.Float64Range(0.5, 0.999),
			rapid.SampledFrom([]float64{
				0.5, 0.75, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999,
			})).Draw(t, "confidence")
		try := func(draws int64) string {
			v, err := AgainstRandom(TrialRequest{
				Images: 9, Correct: 9, RandomCorrect: make([]int64, draws), Confidence: confidence,
			})
			if err != nil {
				t.Fatal(err)
			}
			return v.Verdict
		}
		needed := neededDraws(confidence)
		if got := try(needed); got != Better {
			t.Fatalf("%d draws at %v: %s", needed, confidence, got)
		}
		if needed > 1 {
			if got := try(needed - 1); got != InsufficientDraws {
				t.Fatalf("%d draws at %v: %s", needed-1, confidence, got)
			}
		}
	})
}

// A better result never has a higher p, and the order of the draws does not matter.
func TestMoreCorrectIsNeverWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rapid.SliceOfN(rapid.Int64Range(0, 20), 1, 40).Draw(t, "random")
		correct := rapid.Int64Range(0, 19).Draw(t, "correct")
		less, err := AgainstRandom(TrialRequest{
			Images: 20, Correct: correct, RandomCorrect: random, Confidence: 0.9,
		})
		slices.Sort(random)
		more, err2 := AgainstRandom(TrialRequest{
			Images: 20, Correct: correct + 1, RandomCorrect: random, Confidence: 0.9,
		})
		if err != nil || err2 != nil || more.PValue > less.PValue || less.PValue <= 0 ||
			less.PValue > 1 || less.Verdict == Better && more.Verdict != Better {
			t.Fatalf("%+v, %+v", less, more)
		}
	})
}

func TestVerdictAsJSON(t *testing.T) {
	v, _ := AgainstRandom(TrialRequest{
		Images: 4, Correct: 3, RandomCorrect: []int64{1, 2}, Confidence: 0.95,
	})
	text, err := json.Marshal(v)
	want := `{"verdict":"insufficient draws","p_value":0.3333333333333333,"confidence":0.95,` +
		`"draws":2,"needed_draws":19,"accuracy":0.75,"random_mean":0.375,"random_min":0.25,` +
		`"random_max":0.5}`
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestTrialRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		request TrialRequest
		code    fault.Code
	}{
		"no images":          {TrialRequest{0, 0, []int64{0}, 0.95}, fault.Value},
		"no draws":           {TrialRequest{10, 5, nil, 0.95}, fault.Empty},
		"confidence 1":       {TrialRequest{10, 5, []int64{1}, 1}, fault.Value},
		"confidence low":     {TrialRequest{10, 5, []int64{1}, 0.05}, fault.Value},
		"confidence NaN":     {TrialRequest{10, 5, []int64{1}, math.NaN()}, fault.Value},
		"too many correct":   {TrialRequest{10, 11, []int64{1}, 0.95}, fault.Value},
		"negative":           {TrialRequest{10, -1, []int64{1}, 0.95}, fault.Value},
		"random above":       {TrialRequest{10, 5, []int64{1, 11}, 0.95}, fault.Value},
		"random is negative": {TrialRequest{10, 5, []int64{1, -1}, 0.95}, fault.Value},
	} {
		_, err := AgainstRandom(c.request)
		requireCode(t, name, err, c.code)
	}
}
