package cancel

import "syscall"

// thread returns the number of the running thread.
func thread() int { return syscall.Gettid() }
