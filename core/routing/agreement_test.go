package routing

import (
	"math"
	"slices"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"

	"pgregory.net/rapid"
)

func TestAgreementByHand(t *testing.T) {
	half := float32(math.Log(3)) // probabilities 3/4 and 1/4
	got, err := Agreements(logitsOf(t, 2, half, 0, half, 0, 1000, -1000, 7, 7),
		logitsOf(t, 2, half, 0, 0, half, -1000, 1000, 0, half))
	if want := []float32{1, 0.5, 0, 0.75}; err != nil ||
		!slices.EqualFunc(got, want, func(a, b float32) bool {
			return math.Abs(float64(a-b)) < 1e-7
		}) {
		t.Fatalf("got %v, want %v, %v", got, want, err)
	}
}

// The agreement is 1 minus the total variation distance, in [0, 1], whichever view is the first.
func TestAgreementIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "classes")
		draw := func(name string) []float64 {
			return rapid.SliceOfN(rapid.Float64Range(-30, 30), n, n).Draw(t, name)
		}
		a, b := draw("a"), draw("b")
		distance := 0.0
		for c := range n {
			distance += math.Abs(math.Exp(combinedLogProb(a, a, 1, c))-math.Exp(
				combinedLogProb(b, b, 1, c))) / 2
		}
		first, err := tensor.NewView(a, 1, n)
		if err != nil {
			t.Fatal(err)
		}
		second, _ := tensor.NewView(b, 1, n)
		got, err := Agreements(first, second)
		back, _ := Agreements(second, first)
		if err != nil || math.Abs(float64(got[0])-(1-distance)) > 1e-6 || got[0] < 0 ||
			got[0] > 1 || got[0] != back[0] {
			t.Fatalf("got %v and %v, want %v, %v", got, back, 1-distance, err)
		}
	})
}

func TestAgreementRefusals(t *testing.T) {
	pair := logitsOf(t, 2, 1, 2)
	_, err := Agreements(pair, logitsOf(t, 2, 1, 2, 3, 4))
	requireCode(t, err, fault.Shape)
	_, err = Agreements(pair, logitsOf(t, 1, 1))
	requireCode(t, err, fault.Shape)
	_, err = Agreements(pair, logitsOf(t, 2, 1, float32(math.Inf(1))))
	requireCode(t, err, fault.Nonfinite)
}
