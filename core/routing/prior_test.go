package routing

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

func TestMaxProbabilityByHand(t *testing.T) {
	prediction, prior, err := MaxProbability(logitsOf(t, 3,
		0, 0, 0, // all tie: the lowest class
		0, float32(math.Log(2)), 0, // 2 of 4
		5, 9, 9, // the lower of the two best
		-1000, 1000, -1000, // sure, without overflow
		math.MaxFloat32, -math.MaxFloat32, 0,
	))
	if err != nil {
		t.Fatal(err)
	}
	if want := []int32{0, 1, 1, 1, 0}; !slices.Equal(prediction, want) {
		t.Fatalf("got %v, want %v", prediction, want)
	}
	want := []float32{1.0 / 3, 0.5, float32(1 / (2 + math.Exp(-4))), 1, 1}
	if !slices.Equal(prior, want) {
		t.Fatalf("got %v, want %v", prior, want)
	}
}

// The prior is the float32 nearest to the exact softmax, here made with 200 bits.
func TestMaxProbabilityIsCorrectlyRounded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		row := make([]float32, 10)
		for c := range row {
			row[c] = float32(4 * r.NormFloat64())
		}
		_, prior, err := MaxProbability(logitsOf(t, 10, row...))
		if err != nil {
			t.Fatal(err)
		}
		total := new(big.Float).SetPrec(200)
		for _, v := range row {
			total.Add(total, bigExp(float64(v)-float64(slices.Max(row))))
		}
		exact, _ := new(big.Float).SetPrec(200).Quo(big.NewFloat(1), total).Float32()
		if prior[0] != exact {
			t.Fatalf("got %v, want %v", prior[0], exact)
		}
	}
}

// bigExp sums the series of exp(x/2^10) and squares ten times.
func bigExp(x float64) *big.Float {
	reduced := new(big.Float).SetPrec(200).SetFloat64(x / 1024)
	sum, term := new(big.Float).SetPrec(200).SetInt64(1), new(big.Float).SetPrec(200).SetInt64(1)
	for k := int64(1); k < 40; k++ {
		term.Mul(term, reduced)
		term.Quo(term, new(big.Float).SetPrec(200).SetInt64(k))
		sum.Add(sum, term)
	}
	for range 10 {
		sum.Mul(sum, sum)
	}
	return sum
}

func TestRouteEscalatesBelowTheThreshold(t *testing.T) {
	logits := logitsOf(t, 2, 0, 0, 9, 0, 0, 1000, 0, 0)
	for threshold, want := range map[float64][]int64{
		0: {}, 0.5: {}, math.Nextafter(0.5, 1): {0, 3}, 0.9999: {0, 1, 3}, 1: {0, 1, 3}, EscalateAll: {0, 1, 2, 3},
	} {
		got, err := Route(logits, threshold)
		if err != nil || got == nil || !slices.Equal(got, want) {
			t.Errorf("threshold %v: got %v, %v; want %v", threshold, got, err, want)
		}
	}
}

func TestLogitsAreChecked(t *testing.T) {
	nan := float32(math.NaN())
	_, _, err := MaxProbability(logitsOf(t, 2, 1, 2, 3, nan, float32(math.Inf(-1)), 0))
	requireCode(t, err, fault.Nonfinite)
	if !strings.Contains(err.Error(), "2 logits are not finite, the first NaN at row 1, class 1") {
		t.Fatal(err)
	}
	_, err = Route(logitsOf(t, 2, nan, nan), 0.5)
	requireCode(t, err, fault.Nonfinite)
	_, err = Route(logitsOf(t, 2, 1, 2), math.NaN())
	requireCode(t, err, fault.Value)
	_, _, err = MaxProbability(tensor.View{})
	requireCode(t, err, fault.Shape)
	if prediction, prior, err := MaxProbability(logitsOf(t, 2)); err != nil || len(prediction) != 0 || len(prior) != 0 {
		t.Fatalf("no rows: %v, %v, %v", prediction, prior, err)
	}
}

// Logits of any dtype and stride give what the same numbers give in float32.
func TestMaxProbabilityOfEveryDtype(t *testing.T) {
	values := []float32{0.5, 2, -1, 3, 3, 0.25}
	prediction, prior, err := MaxProbability(logitsOf(t, 3, values...))
	if err != nil {
		t.Fatal(err)
	}
	wide, bfloat := make([]float64, 7), make([]tensor.BFloat16, 7)
	for i, v := range values {
		at := i + i/3 // rows 4 elements apart
		wide[at], bfloat[at] = float64(v), tensor.BFloat16(math.Float32bits(v)>>16)
	}
	wide[3], bfloat[3] = math.NaN(), 0x7fc0
	check := func(logits tensor.View, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if p, q, err := MaxProbability(logits); err != nil || !slices.Equal(p, prediction) || !slices.Equal(q, prior) {
			t.Errorf("%s: got %v, %v, %v; want %v, %v", logits.Dtype(), p, q, err, prediction, prior)
		}
	}
	check(tensor.NewStridedView(wide, 2, 3, 4))
	check(tensor.NewStridedView(bfloat, 2, 3, 4))
	check(tensor.NewView([]tensor.Float16{0x3800, 0x4000, 0xbc00, 0x4200, 0x4200, 0x3400}, 2, 3))
}
