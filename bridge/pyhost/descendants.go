package pyhost

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// EndDescendants sends SIGTERM to all processes that this one has started and to theirs: workers of
// data loaders, which would wait for batches that nobody asks for. A process comes before those it
// has started: one that waits for another would go on when that ends, and start more.
func EndDescendants() {
	for _, pid := range descendants(os.Getpid()) {
		if process, err := os.FindProcess(pid); err == nil {
			_ = process.Signal(syscall.SIGTERM)
		}
	}
}

// descendants lists the processes that one has started, each before those that it has started.
func descendants(pid int) (found []int) {
	// where there is no /proc, there are no names
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range names {
		children, _ := os.ReadFile(name)
		for _, field := range strings.Fields(string(children)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err != nil {
				continue
			}
			found = append(append(found, child), descendants(child)...)
		}
	}
	return found
}
