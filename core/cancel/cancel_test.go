package cancel_test

import (
	"runtime"
	"sync/atomic"
	"testing"

	"agflow/core/cancel"
	"agflow/core/fault"
)

// work looks at the flag in every step and returns how many it took.
func work(steps int, step func(int)) (taken int, err error) {
	defer fault.Recover(&err)
	for i := range steps {
		step(i)
		cancel.At(i)
		taken++
	}
	return taken, nil
}

func onThreadWith(flag *int32, use func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cancel.Lend(flag)
	defer cancel.Lend(nil)
	use()
}

func TestWorkEndsWhenItsFlagIsSet(t *testing.T) {
	var flag int32
	onThreadWith(&flag, func() {
		taken, err := work(10_000, func(i int) {
			if i == 5000 {
				atomic.StoreInt32(&flag, 1)
			}
		})
		if fault.CodeOf(err) != fault.Cancelled || taken < 5000 || taken > 5300 {
			t.Error(taken, err)
		}
	})
	if taken, err := work(10_000, func(int) {}); taken != 10_000 || err != nil {
		t.Error("a flag that was taken back still counts:", taken, err)
	}
}

func TestAFlagIsOfItsThreadAlone(t *testing.T) {
	flag := int32(1)
	onThreadWith(&flag, func() {
		ended := make(chan error)
		go func() {
			_, err := work(1000, func(int) {})
			ended <- err
		}()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	b.Run("no flag", func(b *testing.B) {
		for range b.N {
			cancel.Check()
		}
	})
	var flag int32
	onThreadWith(&flag, func() {
		b.Run("flag", func(b *testing.B) {
			for range b.N {
				cancel.Check()
			}
		})
	})
}
