package pyhost

import (
	"os"
	"strings"
)

const preload = "LD_PRELOAD"

// Preload names libpython in the environment of the host to be started, before what else is
// preloaded. The host is linked to none: so it gets that of the Python it hosts, wherever it is.
func Preload(libpython string) {
	os.Setenv(preload, strings.TrimSuffix(libpython+":"+os.Getenv(preload), ":"))
}

// ForgetPreload undoes Preload, in the host, so that no program that Python starts is burdened with
// libpython.
func ForgetPreload() {
	first, rest, _ := strings.Cut(os.Getenv(preload), ":")
	switch {
	case !strings.Contains(first, "libpython"):
	case rest == "":
		os.Unsetenv(preload)
	default:
		os.Setenv(preload, rest)
	}
}
