// Package cancel ends long work whose caller no longer wants its result. The caller lends a flag to
// the thread that the work runs on, and sets it from another one; long loops look at the flag, at
// least every few hundredths of a second.
//
// A call from another language keeps the thread of its caller, and Go's scheduler keeps the
// goroutine of the call on that thread. So the flag belongs to the thread and needs no parameter in
// any function between the call and its loops. Goroutines that a call starts have no flag: the one
// that waits for them looks at it.
package cancel

import (
	"slices"
	"sync"
	"sync/atomic"

	"agflow/core/fault"
)

// flags are the flags of the threads that have one. Most processes never have any.
var flags struct {
	sync.RWMutex
	of     map[int]*int32
	number atomic.Int32
}

// Lend gives the running thread a flag, whose memory stays the caller's, or takes it back where the
// flag is nil. The caller sets it to anything but 0, atomically, to end the work of the thread.
func Lend(flag *int32) {
	flags.Lock()
	defer flags.Unlock()
	if flag == nil {
		delete(flags.of, thread())
	} else {
		if flags.of == nil {
			flags.of = map[int]*int32{}
		}
		flags.of[thread()] = flag
	}
	flags.number.Store(int32(len(flags.of)))
}

// Check panics with an error of the code cancelled, which fault.Recover makes the result of the
// call, when the flag of the running thread is set. It costs about 0.1 µs where there is a flag,
// and nearly nothing where there is none.
func Check() {
	if flags.number.Load() == 0 {
		return
	}
	flags.RLock()
	flag := flags.of[thread()]
	flags.RUnlock()
	if flag != nil && atomic.LoadInt32(flag) != 0 {
		panic(fault.New(fault.Cancelled, "the call was cancelled by its caller"))
	}
}

// every is how many steps of a loop of short steps pass between two looks at the flag.
const every = 256

// At is Check in step i of a loop of short steps, in some of them.
func At(i int) {
	if i%every == every-1 { // loops of a few steps have no cost
		Check()
	}
}

// SortFunc is slices.SortFunc, which ends when the work is cancelled.
func SortFunc[T any](values []T, compare func(a, b T) int) {
	comparisons := 0
	slices.SortFunc(values, func(a, b T) int {
		At(comparisons)
		comparisons++
		return compare(a, b)
	})
}
