package pyhost

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// place makes an executable file <root>/bin/python3 with the given other files and returns its
// path.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files["bin/python3"] = "#!/bin/sh\n"
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(root, "bin", "python3")
}

func TestCheckVersion(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  string // part of the refusal; empty: accepted
	}{
		"venv": {map[string]string{"pyvenv.cfg": "home = /usr/bin\nversion = " +
			"3.11.7\n"}, ""},
		"virtualenv": {map[string]string{"pyvenv.cfg": "version_info = " +
			"3.11.7.final.0\n"}, ""},
		"uv": {map[string]string{"pyvenv.cfg": "version_info=3.11\n"}, ""},
		"venv of another version": {map[string]string{"pyvenv.cfg": "version = 3.12.1\n"},
			"is an environment of Python 3.12, but this agflow was built for Python 3.11: install"},
		"3.1 is not 3.11": {map[string]string{"pyvenv.cfg": "version = 3.1.1\n"},
			"of Python 3.1,"},
		"no version, no library": {map[string]string{"pyvenv.cfg": "home = /usr/bin\n"},
			"is not a Python 3.11"},
		"installation":        {map[string]string{"lib/python3.11/os.py": ""}, ""},
		"installation, lib64": {map[string]string{"lib64/python3.11/os.py": ""}, ""},
		"other installation": {map[string]string{"lib/python3.12/os.py": ""},
			"is not a Python 3.11 (no lib/python3.11 below"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckVersion(place(t, test.files), "3.11")
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want a refusal with %q", err, test.want)
			}
		})
	}
}

func TestInterpreterBesidesAnInstalledProgram(t *testing.T) {
	for program, want := range map[string]string{
		"/env/bin/agflow": "/env/bin/python3",
		"/env/lib/python3.11/site-packages/agflow/_bin/agflow-host": "/env/bin/python3",
		"/env/lib64/python3.11/site-packages/agflow/_bin/agflow":    "/env/bin/python3",
	} {
		if got := besides(program); got != want {
			t.Errorf("besides %s is %s, want %s", program, got, want)
		}
	}
}

func TestPreloadIsUndone(t *testing.T) {
	for _, before := range []string{"", "/lib/jemalloc.so", "/lib/a.so:/lib/libpython3.12.so.1.0"} {
		t.Setenv(preload, before)
		Preload("/lib/libpython3.11.so.1.0")
		first, rest, _ := strings.Cut(os.Getenv(preload), ":")
		if first != "/lib/libpython3.11.so.1.0" || rest != before {
			t.Errorf("%q became %q", before, os.Getenv(preload))
		}
		for range 2 {
			ForgetPreload()
			if got := os.Getenv(preload); got != before {
				t.Errorf("%q, not %q", got, before)
			}
		}
	}
}

func TestFindPrefersWhatIsAsked(t *testing.T) {
	asked, active, onPath := place(t, map[string]string{}), place(t, map[string]string{}),
		place(t, map[string]string{})
	t.Setenv("PATH", filepath.Dir(onPath))
	t.Setenv("VIRTUAL_ENV", filepath.Dir(filepath.Dir(active)))
	for option, want := range map[string]string{asked: asked, "python3": onPath, "": active} {
		if got, err := Find(option); got != want || err != nil {
			t.Errorf("Find(%q) = %q, %v; want %q", option, got, err, want)
		}
	}
	t.Setenv("VIRTUAL_ENV", "")
	if got, err := Find(""); got != onPath || err != nil {
		t.Errorf("without an environment Find gave %q, %v; want %q", got, err, onPath)
	}
	if _, err := Find("/nowhere/python3"); err == nil ||
		!strings.Contains(err.Error(),
			"no Python interpreter at /nowhere/python3: name one with --python") {
		t.Error(err)
	}
}
