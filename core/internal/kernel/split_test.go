package kernel

import (
	"math"
	"sync/atomic"
	"testing"
)

// Every channel is processed once, for any number of workers.
func TestSplitCoversEveryChannelOnce(t *testing.T) {
	for _, channels := range []int{0, 1, 15, 16, 17, 768} {
		for _, workers := range []int{math.MinInt, -1, 0, 1, 2, 7, 1000, math.MaxInt} {
			seen := make([]atomic.Int32, channels)
			err := split(channels, workers, func(lo, hi int) {
				for c := lo; c < hi; c++ {
					seen[c].Add(1)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for c := range seen {
				if n := seen[c].Load(); n != 1 {
					t.Fatalf("%d channels, %d workers: channel %d was worked on %d times", channels,
						workers, c, n)
				}
			}
		}
	}
}
