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

// maxProbability is the first of the priors alone.
func maxProbability(logits tensor.View) (prediction []int32, prior []float32, err error) {
	prediction, priors, err := Priors(logits, 1, LightExpert)
	if err != nil {
		return nil, nil, err
	}
	return prediction, priors[0].Values, nil
}

func TestMaxProbabilityByHand(t *testing.T) {
	prediction, prior, err := maxProbability(logitsOf(t, 3,
		0, 0, 0, // all equal: the lowest class
		0, float32(math.Log(2)), 0, // 2 of 4
		5, 9, 9, // the lower of the two best
		-1000, 1000, -1000, // certain, without overflow
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

// Every prior is the float32 nearest to the exact value, here computed with 200 bits, also at a
// temperature.
func TestPriorsAreCorrectlyRounded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for trial := range 200 {
		temperature := []float64{1, 0.5, 4}[trial%3] // exact quotients
		row := make([]float32, 10)
		for c := range row {
			row[c] = float32(4 * r.NormFloat64())
		}
		_, priors, err := Priors(logitsOf(t, 10, row...), temperature, LightExpert)
		if err != nil {
			t.Fatal(err)
		}
		best := float64(slices.Max(row))
		second := math.Inf(-1)
		total, weighted := newBig(0), newBig(0)
		for _, v := range row {
			if float64(v) < best {
				second = max(second, float64(v))
			}
			e := bigExp((float64(v) - best) / temperature)
			total.Add(total, e)
			weighted.Add(weighted, newBig(0).Mul(e, newBig((float64(v)-best)/temperature)))
		}
		exact, _ := newBig(0).Quo(newBig(1), total).Float32()
		if got := priors[0].Values[0]; got != exact {
			t.Fatalf("max_probability: got %v, want %v", got, exact)
		}
		margin := newBig(0).Sub(newBig(1), bigExp((second-best)/temperature))
		if want, _ := margin.Quo(margin, total).Float32(); priors[1].Values[0] != want {
			t.Fatalf("margin: got %v, want %v", priors[1].Values[0], want)
		}
		sum, _ := total.Float64()
		mean, _ := weighted.Quo(weighted, total).Float64()
		if want := mean - math.Log(sum); math.Abs(float64(
			priors[2].Values[0])-want) > 1e-7*math.Abs(want) {
			t.Fatalf("entropy: got %v, want %v", priors[2].Values[0], want)
		}
		if want := float32(best + temperature*math.Log(sum)); priors[3].Values[0] != want {
			t.Fatalf("energy: got %v, want %v", priors[3].Values[0], want)
		}
	}
}

// Logits that are far apart give limits, not NaN; a single class has probability 1.
func TestPriorsOfExtremeLogits(t *testing.T) {
	for name, logits := range map[string]tensor.View{
		"far apart": logitsOf(t, 3, math.MaxFloat32, -math.MaxFloat32, 0),
		"one class": logitsOf(t, 1, 7),
	} {
		for _, temperature := range []float64{1, lowestTemperature, highestTemperature} {
			_, priors, err := Priors(logits, temperature, LightExpert)
			if err != nil || priors[0].Values[0] != 1 || priors[1].Values[0] != 1 ||
				priors[2].Values[0] != 0 {
				t.Errorf("%s at %v: %v, %v", name, temperature, priors, err)
			}
		}
	}
	for _, temperature := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		_, _, err := Priors(logitsOf(t, 1, 7), temperature, LightExpert)
		requireCode(t, err, fault.Value)
	}
}

func TestL1Norms(t *testing.T) {
	got, err := L1Norms(logitsOf(t, 3, 1, -2, 0.5, 0, 0, -4))
	if err != nil || !slices.Equal(got, []float32{3.5, 4}) {
		t.Fatalf("got %v, %v", got, err)
	}
	_, err = L1Norms(logitsOf(t, 1, float32(math.Inf(1))))
	requireCode(t, err, fault.Nonfinite)
}

// A rule routes by its own prior; a scaled prior is computed from the logits divided by the
// temperature.
func TestEveryPriorRoutes(t *testing.T) {
	logits := logitsOf(t, 3, 4, 0, 0, 1, 0.9, 0, 9, 8.9, -9)
	for _, name := range LogitPriors {
		for _, temperature := range []float64{1, 3} {
			_, priors, err := Priors(logits, temperature, LightExpert)
			if err != nil {
				t.Fatal(err)
			}
			values := priors[slices.Index(LogitPriors, name)].Values
			threshold := float64(slices.Max(values))
			var want []int64
			for i, v := range values {
				if float64(v) < threshold {
					want = append(want, int64(i))
				}
			}
			got, err := Rule{name + Scaled, temperature, threshold}.Route(logits)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s at %v: got %v, %v; want %v", name, temperature, got, err, want)
			}
		}
	}
	if got, err := (Rule{L1Norm, 1, 5}).Route(logits); err != nil ||
		!slices.Equal(got, []int64{0, 1}) {
		t.Errorf("l1_norm: %v, %v", got, err)
	}
	_, err := Rule{"agreement", 1, 5}.Route(logits)
	requireCode(t, err, fault.Value)
}

func newBig(x float64) *big.Float { return new(big.Float).SetPrec(200).SetFloat64(x) }

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
		0: {}, 0.5: {}, math.Nextafter(0.5, 1): {0, 3}, 0.9999: {0, 1, 3}, 1: {0, 1, 3},
		EscalateAll: {0, 1, 2, 3},
	} {
		got, err := Rule{MaxProbability, 1, threshold}.Route(logits)
		if err != nil || got == nil || !slices.Equal(got, want) {
			t.Errorf("threshold %v: got %v, %v; want %v", threshold, got, err, want)
		}
	}
}

func TestLogitsAreChecked(t *testing.T) {
	nan := float32(math.NaN())
	_, _, err := maxProbability(logitsOf(t, 2, 1, 2, 3, nan, float32(math.Inf(-1)), 0))
	requireCode(t, err, fault.Nonfinite)
	if !strings.Contains(err.Error(),
		"2 logits of the light expert are not finite, the first NaN at row 1, column 1") {
		t.Fatal(err)
	}
	_, err = Rule{Energy, 1, 0.5}.Route(logitsOf(t, 2, nan, nan))
	requireCode(t, err, fault.Nonfinite)
	_, err = Rule{MaxProbability, 1, math.NaN()}.Route(logitsOf(t, 2, 1, 2))
	requireCode(t, err, fault.Value)
	_, _, err = maxProbability(tensor.View{})
	requireCode(t, err, fault.Shape)
	if prediction, prior, err := maxProbability(logitsOf(t, 2)); err != nil ||
		len(prediction) != 0 || len(prior) != 0 {
		t.Fatalf("no rows: %v, %v, %v", prediction, prior, err)
	}
}

// Logits of any dtype and stride give the same results as in float32.
func TestMaxProbabilityOfEveryDtype(t *testing.T) {
	values := []float32{0.5, 2, -1, 3, 3, 0.25}
	prediction, prior, err := maxProbability(logitsOf(t, 3, values...))
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
		if p, q, err := maxProbability(logits); err != nil || !slices.Equal(p, prediction) ||
			!slices.Equal(q, prior) {
			t.Errorf("%s: got %v, %v, %v; want %v, %v", logits.Dtype(), p, q, err, prediction,
				prior)
		}
	}
	check(tensor.NewStridedView(wide, 2, 3, 4))
	check(tensor.NewStridedView(bfloat, 2, 3, 4))
	check(tensor.NewView([]tensor.Float16{0x3800, 0x4000, 0xbc00, 0x4200, 0x4200, 0x3400}, 2, 3))
}
