package routing

import (
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// Labels drawn at a temperature give about this temperature, and no temperature near the result has
// a greater likelihood.
func TestFitTemperature(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	const n, classes, truth = 20_000, 5, 2.5
	values, labels := make([]float32, n*classes), make([]int64, n)
	for i := range n {
		row, total := values[i*classes:(i+1)*classes], 0.0
		for c := range row {
			row[c] = float32(3 * r.NormFloat64())
			total += math.Exp(float64(row[c]) / truth)
		}
		left := r.Float64() * total
		for labels[i] = 0; labels[i] < classes-1; labels[i]++ {
			if left -= math.Exp(float64(row[labels[i]]) / truth); left < 0 {
				break
			}
		}
	}
	logits := logitsOf(t, classes, values...)
	got, err := FitTemperature(logits, labels)
	if err != nil || math.Abs(got-truth) > 0.15 {
		t.Fatalf("got %v, %v", got, err)
	}
	loss := func(temperature float64) (sum float64) {
		for i, label := range labels {
			if !Chooses(i) {
				continue
			}
			total := 0.0
			for c := range classes {
				total += math.Exp(float64(values[i*classes+c]) / temperature)
			}
			sum += math.Log(total) - float64(values[i*classes+int(label)])/temperature
		}
		return sum
	}
	if at := loss(got); loss(1.01*got) < at || loss(got/1.01) < at {
		t.Errorf("%v is not the best temperature", got)
	}
	// The samples that are left for calibration do not matter.
	for i := range labels {
		if !Chooses(i) {
			labels[i] = 0
		}
	}
	if again, err := FitTemperature(logits, labels); err != nil || again != got {
		t.Errorf("labels of other samples changed %v to %v, %v", got, again, err)
	}
}

func TestFitTemperatureAtItsEnds(t *testing.T) {
	var values []float32
	for range 100 {
		values = append(values, 5, 0)
	}
	logits := logitsOf(t, 2, values...)
	if got, err := FitTemperature(logits, make([]int64, 100)); err != nil ||
		math.Abs(got/lowestTemperature-1) > 1e-6 {
		t.Errorf("always right: %v, %v", got, err)
	}
	wrong := make([]int64, 100)
	for i := range wrong {
		wrong[i] = 1
	}
	if got, err := FitTemperature(logits, wrong); err != nil ||
		math.Abs(got/highestTemperature-1) > 1e-6 {
		t.Errorf("never right: %v, %v", got, err)
	}
	for name, c := range map[string]struct {
		logits tensor.View
		labels []int64
		code   fault.Code
	}{
		"too few labels":  {logits, make([]int64, 99), fault.Shape},
		"a foreign label": {logits, append(make([]int64, 99), 2), fault.Value},
		"no rows":         {logitsOf(t, 2), nil, fault.Empty},
		"NaN":             {logitsOf(t, 1, float32(math.NaN())), make([]int64, 1), fault.Nonfinite},
	} {
		if _, err := FitTemperature(c.logits, c.labels); err == nil || fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// About a quarter is selected, of any stretch of the samples.
func TestAQuarterChooses(t *testing.T) {
	for first := 0; first < 100_000; first += 1000 {
		chosen := 0
		for i := range 1000 {
			if Chooses(first + i) {
				chosen++
			}
		}
		if chosen < 190 || chosen > 310 {
			t.Errorf("of 1,000 samples from %d on %d choose", first, chosen)
		}
	}
}
