package kernel

import (
	"runtime/debug"

	"agflow/core/fault"
	"agflow/core/tensor"

	"golang.org/x/sync/errgroup"
)

// share is the least that a worker is woken for, in bytes; only tests change it.
var share = struct {
	total         int // of y and g: less is done before another processor has begun
	absYGs, allOf int // of a row, for Σ|y·g| and for all sums: see useful
}{2 << 20, 1 << 8, 2 << 10}

// useful limits workers to as many as shorten a pass over y and g. Where a row is shared, each
// processor loads its sums again for few channels, and reads ahead into what belongs to the others:
// all sums of rows of 2 KiB take two workers as long as one, of 512 bytes a quarter longer.
func useful(workers, shareOfRow int, y, g tensor.View) int {
	bytes := y.Channels() * dtypeBytes[y.Dtype()]
	workers = min(workers, 2*y.Rows()*bytes/share.total)
	if !isMaps(y) || !isMaps(g) {
		workers = min(workers, bytes/shareOfRow)
	}
	return workers
}

var dtypeBytes = [...]int{
	tensor.Float32Type: 4, tensor.Float64Type: 8, tensor.Float16Type: 2, tensor.BFloat16Type: 2,
}

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
