package kernel

import (
	"runtime/debug"

	"agflow/core/fault"

	"golang.org/x/sync/errgroup"
)

// split gives each worker whole channels, at least 16; a single worker runs on the caller's
// goroutine. A panic of a worker is returned as an error.
func split(channels, workers int, work func(lo, hi int)) error {
	safely := func(lo, hi int) (err error) {
		defer fault.Recover(&err)
		// elements may lie in a mapped file, which can be cut short
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		work(lo, hi)
		return nil
	}
	workers = min(max(workers, 1), max(channels, 1)) // an absurd number would overflow below
	step := ((channels+workers-1)/workers + 15) &^ 15
	if step >= channels {
		return safely(0, channels)
	}
	var group errgroup.Group
	for lo := 0; lo < channels; lo += step {
		group.Go(func() error { return safely(lo, min(lo+step, channels)) })
	}
	return group.Wait()
}
