package pyhost

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Description is what a Python says of itself and of the agflow that is installed in it.
type Description struct {
	Version    string `json:"version"`    // such as "3.11"
	Executable string `json:"executable"` // of its environment; behind a shim, if there is one
	Host       string `json:"host"`       // path of the program that hosts this Python
	Libpython  string `json:"libpython"`  // path of its shared library; empty where it has none
}

// ask leaves the working directory out: Python would look there first for its own modules.
const ask = "import sys; sys.path[:] = filter(None, sys.path); " +
	"from agflow import _launcher; print(_launcher.describe())"

// Describe asks a Python, for only it knows where its packages are. It refuses one that can't be
// hosted.
func Describe(program string) (d Description, err error) {
	var complaint bytes.Buffer
	c := exec.Command(program, "-c", ask)
	c.Env = slices.DeleteFunc(os.Environ(), isPythonHome)
	c.Stderr = &complaint
	answer, err := c.Output()
	if err != nil {
		if said := lastLine(complaint.String()); said != "" {
			err = fmt.Errorf("%s", said)
		}
		return d, fmt.Errorf("%s has no agflow that works (%w): %[1]s -m pip install agflow, or "+
			"name another Python with --python", program, err)
	}
	// a sitecustomize of the environment may print, too
	if err := json.Unmarshal([]byte(lastLine(string(answer))), &d); err != nil {
		return d, fmt.Errorf("%s did not describe itself (%q): %[1]s -m pip install "+
			"--force-reinstall --no-deps agflow", program, lastLine(string(answer)))
	}
	return d, d.check(program)
}

// isPythonHome tells the variable that moves the standard library to where an environment has none.
func isPythonHome(variable string) bool { return strings.HasPrefix(variable, "PYTHONHOME=") }

func (d Description) check(program string) error {
	switch {
	case d.Libpython == "":
		return fmt.Errorf("%s has no shared libpython%s.so.1.0, so this command can't run the "+
			"steps on models: install it (Debian: apt-get install libpython%[2]s), name a Python "+
			"built with --enable-shared with --python, or use `import agflow` in Python",
			program, d.Version)
	case strings.ContainsAny(d.Libpython, " :"):
		return fmt.Errorf("%s can't be preloaded, for its path has a blank or a colon: name "+
			"another Python with --python", d.Libpython)
	}
	if _, err := os.Stat(d.Host); err != nil {
		return fmt.Errorf("the program %s is missing: %s -m pip install --force-reinstall "+
			"--no-deps agflow", d.Host, program)
	}
	return nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
