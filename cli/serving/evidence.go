package serving

import (
	"errors"
	"io/fs"
	"os"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/routing"
	"agflow/core/routing/monitor"
)

// OpenMonitor continues the monitor whose evidence is in a file, or begins one where there is no
// such file, or path is "".
//
// Errors: file (a state that is damaged, or of another router, calibration or level), and those of
// files and of [monitor.New].
func OpenMonitor(
	path string, router routing.Router, calibration *monitor.Calibration, o monitor.Options,
) (*monitor.Monitor, error) {
	if path == "" {
		return monitor.New(router, calibration, o)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return monitor.New(router, calibration, o)
	}
	content, err := ipcfile.ReadBytes(path, monitor.MaxState)
	if err != nil {
		return nil, err
	}
	m, err := monitor.Restore(content, router, calibration, o)
	if fault.CodeOf(err) == fault.File {
		return nil, ipcfile.Named(path, err)
	}
	return m, err
}

// SaveMonitor writes the evidence of a monitor into a file, unless path is "".
func SaveMonitor(path string, m *monitor.Monitor) error {
	if path == "" {
		return nil
	}
	content, err := m.State()
	if err != nil {
		return err
	}
	return ipcfile.WriteBytes(path, content)
}
