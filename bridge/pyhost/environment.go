package pyhost

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Find chooses the interpreter whose packages the hosted Python uses: the one asked for, that of
// the environment this program is installed in, that of the active virtual environment, the first
// python3 on the PATH.
func Find(asked string) (string, error) {
	if asked != "" {
		return locate(asked)
	}
	if program, err := os.Executable(); err == nil {
		if found, err := locate(besides(program)); err == nil {
			return found, nil
		}
	}
	if environment := os.Getenv("VIRTUAL_ENV"); environment != "" {
		return locate(filepath.Join(environment, "bin", "python3"))
	}
	return locate("python3")
}

// besides is where the interpreter would be of the environment that a program is installed in: pip
// puts the command into the folder of the interpreter, the host into the package.
func besides(program string) string {
	// <environment>/lib/python3.X/site-packages/agflow/_bin/agflow-host
	if packages, _, inside := strings.Cut(program, "/site-packages/agflow/_bin/"); inside {
		return filepath.Join(packages, "..", "..", "bin", "python3")
	}
	return filepath.Join(filepath.Dir(program), "python3")
}

// locate makes the path of an interpreter absolute but follows no link: the place of the link is
// the environment.
func locate(name string) (string, error) {
	found, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("no Python interpreter at %s: name one with --python or "+
			"AGFLOW_PYTHON", name)
	}
	return filepath.Abs(found)
}

// CheckVersion refuses an interpreter whose packages a hosted Python of the wanted version ("3.11")
// cannot use. It must be asked before Python starts: CPython itself starts with the wrong version
// and silently without packages.
func CheckVersion(program, wanted string) error {
	environment := filepath.Dir(filepath.Dir(program))
	found, err := environmentVersion(filepath.Join(environment, "pyvenv.cfg"))
	if err != nil {
		return err
	}
	if found == "" {
		return checkInstallation(program, wanted)
	}
	if found != wanted {
		return fmt.Errorf("%s is an environment of Python %s, but this agflow was built for "+
			"Python %s: install agflow into that environment, or name one of Python %s with "+
			"--python",
			environment, found, wanted, wanted)
	}
	return nil
}

// environmentVersion reads "3.X" from pyvenv.cfg; empty where there is no such file, or it names no
// version.
func environmentVersion(config string) (string, error) {
	file, err := os.Open(config)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the environment's %s cannot be read: %w", config, err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		switch strings.TrimSpace(key) {
		case "version", "version_info": // written by venv; by virtualenv and uv
			numbers := strings.SplitN(strings.TrimSpace(value), ".", 3)
			if len(numbers) >= 2 {
				return numbers[0] + "." + numbers[1], nil
			}
		}
	}
	return "", lines.Err()
}

// checkInstallation wants the standard library of the wanted version beside a Python that is no
// virtual environment.
func checkInstallation(program, wanted string) error {
	resolved, err := filepath.EvalSymlinks(program)
	if err != nil {
		return fmt.Errorf("the Python interpreter %s cannot be read: %w", program, err)
	}
	prefix := filepath.Dir(filepath.Dir(resolved))
	for _, library := range []string{"lib", "lib64"} {
		if _, err := os.Stat(filepath.Join(prefix, library, "python"+wanted, "os.py")); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s is not a Python %s (no lib/python%s below %s), but this agflow was "+
		"built for Python %s: name one, or one of its environments, with --python",
		program, wanted, wanted, prefix, wanted)
}
