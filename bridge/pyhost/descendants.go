package pyhost

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// EndDescendants sends SIGTERM to all processes that this one has started and to theirs: workers of
// data loaders, which would wait for batches that nobody asks for.
func EndDescendants() { endChildren(os.Getpid()) }

func endChildren(pid int) {
	// where there is no /proc, there are no names
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range names {
		children, _ := os.ReadFile(name)
		for _, field := range strings.Fields(string(children)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err != nil {
				continue
			}
			endChildren(child)
			if process, err := os.FindProcess(child); err == nil {
				_ = process.Signal(syscall.SIGTERM)
			}
		}
	}
}
