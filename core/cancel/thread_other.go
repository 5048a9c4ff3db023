//go:build !linux

package cancel

// thread is the same for all threads: agflow is called from other languages on Linux only.
func thread() int { return 0 }
