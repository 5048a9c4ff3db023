package monitor

import (
	"math"

	"agflow/core/routing"
)

// windowSize is the number of audited images that say what is lost now.
const windowSize = 1000

// window has the last audited images: -1, 0 or 1 each, with its weight.
type window struct {
	weights []float64
	values  []int8
	next    int // the oldest, once it is full
}

func (w *window) add(weight float64, value int8) {
	if len(w.values) < windowSize {
		w.weights, w.values = append(w.weights, weight), append(w.values, value)
		return
	}
	w.weights[w.next], w.values[w.next] = weight, value
	w.next = (w.next + 1) % windowSize
}

// inOrder returns a window of the same images, the oldest first.
func (w *window) inOrder() *window {
	return &window{
		weights: append(append([]float64{}, w.weights[w.next:]...), w.weights[:w.next]...),
		values:  append(append([]int8{}, w.values[w.next:]...), w.values[:w.next]...),
	}
}

// Mean is a weighted mean over the last audited images, with a confidence sequence of 95 %.
type Mean struct {
	Audits   int              `json:"audits"`
	Value    float64          `json:"value"`
	Interval routing.Interval `json:"interval"`
}

// mean returns the mean of numbers from a least one to 1, nil where there are none. The interval
// has every mean against which neither of two bettors, one on each side, has 40 times the capital
// that it began with, at any time of the window (Waudby-Smith and Ramdas 2024).
func (w *window) mean(least float64) *Mean {
	if len(w.values) == 0 {
		return nil
	}
	total, sum := 0.0, 0.0
	for i, weight := range w.weights {
		total += weight
		sum += weight * float64(w.values[i])
	}
	middle := sum / total
	return &Mean{len(w.values), middle,
		routing.Interval{w.end(middle, least, 1), w.end(middle, 1, -1)}}
}

// end is where the interval ends between its middle and a value outside; sign is 1 for bets that
// the mean is greater.
func (w *window) end(middle, outside, sign float64) float64 {
	within := middle
	for range 24 {
		if at := (within + outside) / 2; w.refutes(at, sign) {
			outside = at
		} else {
			within = at
		}
	}
	return outside
}

func (w *window) refutes(mean, sign float64) bool {
	const needs = 2 / 0.05
	capital := [4]float64{1, 1, 1, 1}
	bets := [4]float64{0.45, 0.2, 0.08, 0.03}
	for i, weight := range w.weights {
		x, sum := sign*weight*(float64(w.values[i])-mean), 0.0
		for k, bet := range bets {
			capital[k] *= 1 + bet*x
			sum += capital[k]
		}
		if sum >= needs*float64(len(bets)) {
			return true
		}
	}
	return false
}

// blockSize is the number of images of a block.
const blockSize = 5000

// blocks count the images that escalated in the block before the current one, and in that.
type blocks struct {
	Before    int64 `json:"before"`
	BeforeOf  int64 `json:"before_of"`
	Current   int64 `json:"current"`
	CurrentOf int64 `json:"current_of"`
}

func (b *blocks) add(escalated bool) {
	if b.CurrentOf == blockSize {
		*b = blocks{Before: b.Current, BeforeOf: b.CurrentOf}
	}
	b.CurrentOf++
	b.Current += int64(truth(escalated))
}

// rate returns the share of the images that escalated, and the number of images.
func (b *blocks) rate() (share float64, n int64) {
	n = b.BeforeOf + b.CurrentOf
	return float64(b.Before+b.Current) / math.Max(1, float64(n)), n
}
