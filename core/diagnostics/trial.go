package diagnostics

import (
	"math"
	"slices"

	"agflow/core/fault"
)

// The verdicts of a trial.
const (
	Better             = "better than random here"
	NotDistinguishable = "not distinguishable from random here"
	InsufficientDraws  = "insufficient draws"
)

// TrialRequest has the results of equally pruned models on the same images: one pruned by a
// criterion, the others by random scores of different seeds.
type TrialRequest struct {
	Images        int64   `json:"images"`
	Correct       int64   `json:"correct"`        // of the criterion's model
	RandomCorrect []int64 `json:"random_correct"` // of each random model, one draw each
	// with 0.95, "better" is wrong at most once in twenty
	Confidence float64 `json:"confidence"`
}

// Verdict is the result of a trial. Accuracies are shares of the images.
type Verdict struct {
	Verdict    string  `json:"verdict"`
	PValue     float64 `json:"p_value"`
	Confidence float64 `json:"confidence"`

	Draws       int   `json:"draws"`
	NeededDraws int64 `json:"needed_draws"` // the least number with which the verdict can be Better

	Accuracy   float64 `json:"accuracy"`
	RandomMean float64 `json:"random_mean"`
	RandomMin  float64 `json:"random_min"`
	RandomMax  float64 `json:"random_max"`
}

// AgainstRandom tests whether a criterion beats random pruning. Were its choice one more random
// one, each of the 1 + draws results would be as likely to be the best, so that
//
//	p = (1 + #{random >= criterion}) / (1 + draws)
//
// is at most α with a chance of at most α: exact for any number of images, with ties counted
// against the criterion (a permutation test; Phipson and Smyth, arXiv 1603.05766). The verdict is
// Better at p <= 1 - confidence. Fewer draws than 1 / (1 - confidence) - 1 cannot reach that and
// are InsufficientDraws. The verdict holds for this model, these images and this pruning ratio.
//
// Errors: value (counts that do not fit together, confidence), empty (no draws).
func AgainstRandom(r TrialRequest) (Verdict, error) {
	if err := r.check(); err != nil {
		return Verdict{}, err
	}
	draws := len(r.RandomCorrect)
	atLeast, sum := 0, 0.0
	for _, correct := range r.RandomCorrect {
		if correct >= r.Correct {
			atLeast++
		}
		sum += float64(correct)
	}
	images := float64(r.Images)
	v := Verdict{
		Verdict: NotDistinguishable, PValue: float64(1+atLeast) / float64(1+draws),
		Confidence: r.Confidence, Draws: draws, NeededDraws: neededDraws(r.Confidence),
		Accuracy: float64(r.Correct) / images, RandomMean: sum / float64(draws) / images,
		RandomMin: float64(slices.Min(r.RandomCorrect)) / images,
		RandomMax: float64(slices.Max(r.RandomCorrect)) / images,
	}
	switch {
	case int64(draws) < v.NeededDraws:
		v.Verdict = InsufficientDraws
	case v.PValue <= (1-r.Confidence)*(1+slack):
		v.Verdict = Better
	}
	return v, nil
}

// slack absorbs the rounding of shares: 1-0.9 is a little below 0.1.
const slack = 1e-9

// neededDraws is the least number with 1 / (1 + draws) <= 1 - confidence.
func neededDraws(confidence float64) int64 {
	return int64(math.Ceil((1/(1-confidence))*(1-slack))) - 1
}

func (r TrialRequest) check() error {
	switch {
	case r.Images < 1:
		return fault.New(fault.Value, "the trial has %d images; evaluate on at least one", r.Images)
	case len(r.RandomCorrect) == 0:
		return fault.New(fault.Empty,
			"the trial has no random draws; prune by random with at least one seed")
	case !(r.Confidence >= 0.5 && r.Confidence < 1):
		return fault.New(fault.Value,
			"confidence is %v; it must be at least 0.5 and below 1, as 0.95", r.Confidence)
	case r.Correct < 0 || r.Correct > r.Images:
		return fault.New(fault.Value,
			"the criterion has %d of %d images correct; give a number from 0 to %d", r.Correct,
			r.Images, r.Images)
	}
	for i, correct := range r.RandomCorrect {
		if correct < 0 || correct > r.Images {
			return fault.New(fault.Value,
				"random draw %d has %d of %d images correct; give a number from 0 to %d", i,
				correct, r.Images, r.Images)
		}
	}
	return nil
}
