package routing

import (
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"

	"pgregory.net/rapid"
)

// combinedLogProb is the definition of an ensemble answer, without protection against overflow.
func combinedLogProb(light, heavy []float64, weight float64, class int) float64 {
	logSum := func(row []float64) (sum float64) {
		for _, v := range row {
			sum += math.Exp(v)
		}
		return math.Log(sum)
	}
	return weight*(light[class]-logSum(light)) + (1-weight)*(heavy[class]-logSum(heavy))
}

func TestCombineIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.IntRange(0, 4).Draw(t, "rows")
		classes := rapid.IntRange(1, 6).Draw(t, "classes")
		draw := func(name string) ([]float64, tensor.View) {
			values := rapid.SliceOfN(rapid.Float64Range(-50, 50), rows*classes,
				rows*classes).Draw(t, name)
			v, err := tensor.NewView(values, rows, classes)
			if err != nil {
				t.Fatal(err)
			}
			return values, v
		}
		a, light := draw("light")
		b, heavy := draw("heavy")
		weight := rapid.Float64Range(0, 1).Draw(t, "weight")
		got, err := Combine(light, heavy, weight)
		if err != nil || len(got) != rows*classes {
			t.Fatal(got, err)
		}
		for i := range got {
			row := i / classes * classes
			want := combinedLogProb(a[row:row+classes], b[row:row+classes], weight, i%classes)
			if math.Abs(float64(got[i])-want) > 1e-6*max(1, math.Abs(want)) {
				t.Fatalf("value %d is %v, want %v", i, got[i], want)
			}
		}
	})
}

// At its ends the weight gives one expert's answers, and logits of any size give finite answers.
func TestCombineAtItsEnds(t *testing.T) {
	const most = math.MaxFloat32
	light, heavy := logitsOf(t, 2, most, -most, 0, 1), logitsOf(t, 2, 3, 5, -most, most)
	for weight, want := range map[float64][2]int32{0: {1, 1}, 1: {0, 1}, 0.5: {0, 1}} {
		got, err := Combine(light, heavy, weight)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range got {
			if v-v != 0 {
				t.Errorf("weight %v: %v", weight, got)
			}
		}
		if classes, _, err := Priors(logitsOf(t, 2, got...), 1, LightExpert); err != nil ||
			[2]int32(classes) != want {
			t.Errorf("weight %v: %v gives %v, want %v, %v", weight, got, classes, want, err)
		}
	}
}

// pairOfLogits draws logits of two experts, and labels of the combined probabilities at a weight.
func pairOfLogits(
	r *rand.Rand, n, classes int, weight float64,
) (light, heavy []float64, labels []int64) {
	light, heavy, labels = make([]float64, n*classes), make([]float64, n*classes), make([]int64, n)
	for i := range light {
		light[i], heavy[i] = 2*r.NormFloat64(), 2*r.NormFloat64()
	}
	for i := range n {
		a, b := light[i*classes:(i+1)*classes], heavy[i*classes:(i+1)*classes]
		best, at := math.Inf(-1), 0
		for c := range classes { // the Gumbel trick
			if v := combinedLogProb(a, b, weight, c) - math.Log(r.ExpFloat64()); v > best {
				best, at = v, c
			}
		}
		labels[i] = int64(at)
	}
	return light, heavy, labels
}

func viewOf(t *testing.T, values []float64, classes int) tensor.View {
	t.Helper()
	v, err := tensor.NewView(values, len(values)/classes, classes)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Labels drawn at a weight give about this weight, and no weight near the result has a greater
// likelihood.
func TestFitLightWeight(t *testing.T) {
	const n, classes, truth = 20_000, 5, 0.3
	a, b, labels := pairOfLogits(rand.New(rand.NewPCG(41, 42)), n, classes, truth)
	light, heavy := viewOf(t, a, classes), viewOf(t, b, classes)
	got, err := FitLightWeight(light, heavy, labels)
	if err != nil || math.Abs(got-truth) > 0.03 {
		t.Fatalf("got %v, %v", got, err)
	}
	loss := func(weight float64) (sum float64) {
		for i, label := range labels {
			if Chooses(i) {
				row := func(v []float64) []float64 { return v[i*classes : (i+1)*classes] }
				total := 0.0
				for c := range classes {
					total += math.Exp(combinedLogProb(row(a), row(b), weight, c))
				}
				sum += math.Log(total) - combinedLogProb(row(a), row(b), weight, int(label))
			}
		}
		return sum
	}
	if at := loss(got); loss(got+0.002) < at || loss(got-0.002) < at {
		t.Errorf("%v is not the best weight", got)
	}
	for i := range labels { // those left for calibration do not matter
		if !Chooses(i) {
			labels[i] = 0
		}
	}
	if again, err := FitLightWeight(light, heavy, labels); err != nil || again != got {
		t.Errorf("labels of other samples changed %v to %v, %v", got, again, err)
	}
}

// An expert without information, or with wrong answers, gets no weight; where both experts are the
// same, the heavy expert answers.
func TestFitLightWeightAtItsEnds(t *testing.T) {
	const n, classes = 400, 3
	right, wrong, labels := make([]float64, n*classes), make([]float64, n*classes), make([]int64, n)
	for i := range n {
		labels[i] = int64(i % classes)
		right[i*classes+i%classes], wrong[i*classes+(i+1)%classes] = 4, 4
	}
	for name, c := range map[string]struct {
		light, heavy []float64
		want         float64
	}{"light right": {right, wrong, 1}, "heavy right": {wrong, right, 0}, "one expert": {
		right, right, 0,
	}} {
		light, heavy := viewOf(t, c.light, classes), viewOf(t, c.heavy, classes)
		if got, err := FitLightWeight(light, heavy, labels); err != nil || got != c.want {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestCombineRefusals(t *testing.T) {
	pair, nan := logitsOf(t, 2, 1, 2, 3, 4), logitsOf(t, 2, 1, 2, 3, float32(math.NaN()))
	for name, c := range map[string]struct {
		light, heavy tensor.View
		weight       float64
		code         fault.Code
	}{
		"rows":       {pair, logitsOf(t, 2, 1, 2), 0.5, fault.Shape},
		"classes":    {pair, logitsOf(t, 1, 1, 2), 0.5, fault.Shape},
		"no classes": {tensor.View{}, tensor.View{}, 0.5, fault.Shape},
		"light NaN":  {nan, pair, 0.5, fault.Nonfinite},
		"heavy NaN":  {pair, nan, 0.5, fault.Nonfinite},
		"below":      {pair, pair, -0.1, fault.Value},
		"above":      {pair, pair, 1.1, fault.Value},
		"NaN":        {pair, pair, math.NaN(), fault.Value},
	} {
		if _, err := Combine(c.light, c.heavy, c.weight); err == nil ||
			fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		labels []int64
		code   fault.Code
	}{"too few labels": {[]int64{0}, fault.Shape}, "a foreign label": {
		[]int64{0, 2}, fault.Value,
	}} {
		if _, err := FitLightWeight(pair, pair, c.labels); err == nil ||
			fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := FitLightWeight(logitsOf(t, 2), logitsOf(t, 2), nil)
	requireCode(t, err, fault.Empty)
}
