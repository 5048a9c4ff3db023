package routing

import (
	"math"

	"agflow/core/fault"
)

const (
	// chanceSamples is the least number of samples on which chance is told from an expert.
	chanceSamples = 100
	// chanceDeviations is what one of 100 shufflings exceeds by chance.
	chanceDeviations = 2.326
)

// checkAboveChance refuses a heavy expert whose answers have nothing to do with the labels.
//
// Were the answers dealt to the samples at random, Σ_k n_k m_k / n of them would be correct on
// average, for n_k samples with label k and m_k answers k, with a variance that is known, too
// (Hoeffding 1951). An expert that is not above this by what one of 100 random orders reaches is
// refused, on 100 samples and more. A guarantee relative to such an expert says nothing, and what
// makes one is nearly always a mistake: labels of other classes, other images in the second pass.
//
// Samples of one label cannot show it, and pass.
func checkAboveChance(labels, answers []int64) error {
	n := float64(len(labels))
	if len(labels) < chanceSamples || len(answers) != len(labels) {
		return nil
	}
	correct, labelled, answered := 0.0, countOf(labels), countOf(answers)
	for i, label := range labels {
		if answers[i] == label {
			correct++
		}
	}
	if len(labelled) < 2 {
		return nil
	}
	var both, byAnswers, byLabels float64 // Σ n_k m_k, Σ n_k m_k², Σ n_k² m_k
	for label, count := range labelled {
		c, a := float64(count), float64(answered[label])
		both += c * a
		byAnswers += c * a * a
		byLabels += c * c * a
	}
	mean := both / n
	variance := (both - byAnswers/n - byLabels/n + mean*mean) / (n - 1)
	if correct > mean+chanceDeviations*math.Sqrt(max(variance, 0)) {
		return nil
	}
	return fault.New(fault.Value,
		"the heavy expert answers %.1f %% of %d images correctly, and chance would answer "+
			"%.1f %%, so that keeping up with it shows nothing; check that the labels are "+
			"the model's classes in its order, and that the images are preprocessed as in its "+
			"training",
		100*correct/n, len(labels), 100*mean/n)
}

// countOf counts the samples of each class.
func countOf(classes []int64) map[int64]int64 {
	counts := map[int64]int64{}
	const run = 1 << 16 // classes below it are counted without a map
	low := make([]int64, run)
	for _, class := range classes {
		if uint64(class) < run {
			low[class]++
		} else {
			counts[class]++
		}
	}
	for class, count := range low {
		if count > 0 {
			counts[int64(class)] = count
		}
	}
	return counts
}
