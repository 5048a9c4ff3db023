package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// asProgram makes this test binary the agflow program, for what can only be seen from outside a process.
const asProgram = "AGFLOW_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func program(environment []string, arguments ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], arguments...)
	c.Env = append(append(os.Environ(), asProgram+"=1"), environment...)
	return c
}

func TestCompletionKnowsCommandsAndFlags(t *testing.T) {
	for _, test := range []struct{ words, want string }{
		{"", "calibrate"},
		{"", "verify"},
		{"plan --pr", "--pruning-ratio"},
	} {
		arguments := append(strings.Fields(test.words), "--generate-bash-completion")
		if out, err := program(nil, arguments...).Output(); err != nil || !strings.Contains(string(out), test.want) {
			t.Errorf("%q completes to %q, %v; want %q", test.words, out, err, test.want)
		}
	}
}

func TestCompletionScriptIsBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not on the PATH")
	}
	script := `COMP_WORDS=(agflow ver); COMP_CWORD=1; agflow() { "` + os.Args[0] + `" "$@"; }; ` + bashCompletion + "\n_agflow; echo ${COMPREPLY[@]}"
	c := exec.Command(bash, "-c", script)
	c.Env = append(os.Environ(), asProgram+"=1")
	if out, err := c.CombinedOutput(); err != nil || string(out) != "verify\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestEnvironmentVariablesAreFlags(t *testing.T) {
	out, err := program([]string{"AGFLOW_JSON=1"}, "completion").Output()
	if err != nil || !strings.HasPrefix(string(out), "{") {
		t.Errorf("%s, %v", out, err)
	}
}
