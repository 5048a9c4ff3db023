package routing

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// answersOf returns labels of some classes, and answers that are right with a probability and any
// class otherwise.
func answersOf(n, classes int, right float64, seed uint64) (labels, answers []int64) {
	random := rand.New(rand.NewPCG(seed, 0))
	for range n {
		label := random.Int64N(int64(classes))
		answer := random.Int64N(int64(classes))
		if random.Float64() < right {
			answer = label
		}
		labels, answers = append(labels, label), append(answers, answer)
	}
	return labels, answers
}

func TestAnExpertAtChanceIsRefused(t *testing.T) {
	for _, classes := range []int{2, 10, 1000} {
		refused := 0
		for seed := range uint64(200) {
			if checkAboveChance(answersOf(400, classes, 0, seed)) != nil {
				refused++
			}
		}
		if refused < 180 { // 99 % of them but for the granularity of small counts
			t.Errorf("%d classes: %d of 200 experts at chance are refused", classes, refused)
		}
	}
}

func TestAPoorExpertAboveChanceIsTaken(t *testing.T) {
	for _, classes := range []int{2, 10, 1000} {
		for seed := range uint64(200) {
			if err := checkAboveChance(answersOf(400, classes, 0.3, seed)); err != nil {
				t.Fatalf("%d classes: %v", classes, err)
			}
		}
	}
}

func TestChanceIsThatOfTheAnswersGiven(t *testing.T) {
	labels, answers := make([]int64, 500), make([]int64, 500)
	for i := range labels[:50] {
		labels[i] = 1
	}
	err := checkAboveChance(labels, answers) // one answer to all: 90 % correct, and no expert
	if err == nil || !strings.Contains(err.Error(), "answers 90.0 % of 500 images correctly") {
		t.Error(err)
	}
	answers[3] = 1 // one image of the rare class is told from others
	if err := checkAboveChance(labels, answers); err != nil {
		t.Error(err)
	}
	shifted := make([]int64, 500)
	for i := range shifted {
		labels[i], shifted[i] = int64(i%10), int64(i%10+1)
	}
	if checkAboveChance(labels, shifted) == nil { // labels counted from another number
		t.Error("labels that are all one off are taken")
	}
}

func TestTooFewSamplesShowNothing(t *testing.T) {
	labels, answers := answersOf(99, 10, 0, 1)
	if err := checkAboveChance(labels, answers); err != nil {
		t.Error(err)
	}
	if err := checkAboveChance(make([]int64, 200), make([]int64, 200)); err != nil {
		t.Error(err) // of one label
	}
	large := []int64{1 << 40, -7, 3}
	if counts := countOf(large); len(counts) != 3 || counts[1<<40] != 1 || counts[-7] != 1 {
		t.Error(counts)
	}
}
