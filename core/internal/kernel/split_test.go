package kernel

import (
	"math"
	"sync/atomic"
	"testing"

	"agflow/core/tensor"
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

// Workers are woken for large inputs, and not to share short rows: maps of channels have long runs.
func TestOnlyUsefulWorkersAreWoken(t *testing.T) {
	rows := func(n, channels int) tensor.View {
		return viewOf(t, make([]float32, n*channels), n, channels, channels)
	}
	maps := func(images, channels, positions int) tensor.View {
		return mapsOf(t, make([]float32, images*channels*positions), images, channels, positions)
	}
	for _, c := range []struct {
		y, g       tensor.View
		absYG, all int
	}{
		{rows(4, 2048), rows(4, 2048), 0, 0},
		{rows(255, 2048), rows(255, 2048), 1, 1},
		{rows(256, 2048), rows(256, 2048), 2, 2},
		{rows(2048, 1024), rows(2048, 1024), 8, 2},
		{rows(16384, 128), rows(16384, 128), 2, 0},
		{maps(2048, 512, 1), maps(2048, 512, 1), 4, 4},
		{maps(2048, 512, 1), rows(2048, 512), 4, 1},
	} {
		absYG, all := useful(8, share.absYGs, c.y, c.g), useful(8, share.allOf, c.y, c.g)
		if absYG != c.absYG || all != c.all {
			t.Errorf("%d rows of %d channels, %d positions: got %d and %d workers, want %d and %d",
				c.y.Rows(), c.y.Channels(), c.y.Positions(), absYG, all, c.absYG, c.all)
		}
	}
}
