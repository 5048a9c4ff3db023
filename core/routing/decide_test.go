package routing

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// Decisions equal those of the rule, and answers those of the expert, or the ensemble, that answers
// the image.
func TestDecisionsAndAnswers(t *testing.T) {
	const n, classes = 300, 4
	a, b, _ := pairOfLogits(rand.New(rand.NewPCG(51, 52)), n, classes, 0.5)
	light := viewOf(t, a, classes)
	for _, prior := range []string{MaxProbability, Energy, Entropy + Scaled} {
		_, all, err := Priors(light, 1, LightExpert)
		if err != nil {
			t.Fatal(err)
		}
		middle := float64(all[slices.Index(LogitPriors, Energy)].Values[7])
		for _, threshold := range []float64{EscalateNone, middle, 0.6, -0.5, EscalateAll} {
			router := Router{
				Prior: prior, Temperature: 1.5, Answers: HeavyAnswers,
				Threshold: Threshold{Threshold: threshold},
			}
			d, err := router.Decide(light)
			if err != nil {
				t.Fatal(err)
			}
			escalated, err := router.Rule().Route(light)
			if err != nil || !slices.Equal(escalatedOf(d), escalated) ||
				d.Escalated() != len(escalated) {
				t.Fatalf("%s < %v: %v escalate, the rule says %v, %v", prior, threshold,
					escalatedOf(d), escalated, err)
			}
			var seen, rows []float64
			for _, i := range escalated {
				seen = append(seen, a[int(i)*classes:int(i+1)*classes]...)
				rows = append(rows, b[int(i)*classes:int(i+1)*classes]...)
			}
			heavy := viewOf(t, rows, classes)
			for _, router.Answers = range []string{HeavyAnswers, EnsembleAnswers} {
				router.LightWeight = 0.4
				answered, err := router.Answer(light, heavy)
				if err != nil {
					t.Fatal(err)
				}
				answers := rows
				if router.Answers == EnsembleAnswers {
					answers = ensemble(t, viewOf(t, seen, classes), heavy, 0.4)
				}
				want := d
				want.Prediction = predictions(a, answers, d.Escalate, classes)
				if !reflect.DeepEqual(answered, want) {
					t.Fatalf("%s: got %+v, want %+v", router.Answers, answered, want)
				}
				if parts := inParts(t, router, light, &heavy, 16); !reflect.DeepEqual(parts, want) {
					t.Fatalf("%s: in parts got %+v, want %+v", router.Answers, parts, want)
				}
			}
		}
	}
}

// inParts joins the decisions for so many images after the other.
func inParts(
	t *testing.T, r Router, light tensor.View, heavy *tensor.View, images int,
) (d Decisions) {
	t.Helper()
	for part, err := range r.InParts(light, heavy, images) {
		if err != nil {
			t.Fatal(err)
		}
		d.Prediction = append(d.Prediction, part.Prediction...)
		d.Prior = append(d.Prior, part.Prior...)
		d.Escalate = append(d.Escalate, part.Escalate...)
	}
	return d
}

// escalatedOf returns the indices of the images that escalate.
func escalatedOf(d Decisions) []int64 {
	escalated := []int64{}
	for i, escalates := range d.Escalate {
		if escalates {
			escalated = append(escalated, int64(i))
		}
	}
	return escalated
}

// ensemble is Combine with its result in float64.
func ensemble(t *testing.T, light, heavy tensor.View, weight float64) (answers []float64) {
	combined, err := Combine(light, heavy, weight)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range combined {
		answers = append(answers, float64(v))
	}
	return answers
}

// predictions returns the class of each image: from the rows of answers for the images that
// escalate, else from the light expert's.
func predictions(light, answers []float64, escalate []bool, classes int) (predicted []int64) {
	for i, escalates := range escalate {
		row := light[i*classes : (i+1)*classes]
		if escalates {
			row, answers = answers[:classes], answers[classes:]
		}
		predicted = append(predicted, int64(slices.Index(row, slices.Max(row))))
	}
	return predicted
}

func TestDecideRefusals(t *testing.T) {
	light, nan := logitsOf(t, 2, 0, 0, 5, 0), logitsOf(t, 2, 0, float32(math.NaN()))
	// the first escalates
	router := Router{
		Prior: MaxProbability, Temperature: 1, Answers: EnsembleAnswers,
		Threshold: Threshold{Threshold: 0.9},
	}
	for name, c := range map[string]struct {
		prior        string
		light, heavy tensor.View
		code         fault.Code
	}{
		"features":      {L1Norm, light, logitsOf(t, 2, 1, 2), fault.Value},
		"a second view": {Agreement, light, logitsOf(t, 2, 1, 2), fault.Value},
		"light NaN":     {MaxProbability, nan, logitsOf(t, 2, 1, 2), fault.Nonfinite},
		"heavy NaN":     {MaxProbability, light, nan, fault.Nonfinite},
		"no rows":       {MaxProbability, light, logitsOf(t, 2), fault.Shape},
		"all rows":      {MaxProbability, light, light, fault.Shape},
		"classes":       {MaxProbability, light, logitsOf(t, 3, 1, 2, 3), fault.Shape},
	} {
		router.Prior = c.prior
		if _, err := router.Answer(c.light, c.heavy); err == nil || fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
