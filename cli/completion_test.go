package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestCompletionKnowsCommandsAndFlags(t *testing.T) {
	for _, test := range []struct{ words, want string }{
		{"", "calibrate"},
		{"", "evaluate-router"},
		{"plan --pr", "--pruning-ratio"},
	} {
		arguments := append(strings.Fields(test.words), "--generate-bash-completion")
		out, err := program(nil, arguments...).Output()
		if err != nil || !strings.Contains(string(out), test.want) {
			t.Errorf("%q completes to %q, %v; want %q", test.words, out, err, test.want)
		}
	}
}

func TestCompletionScriptIsBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not on the PATH")
	}
	script := `COMP_LINE="agflow ver" COMP_POINT=10 COMP_WORDS=(agflow ver) COMP_CWORD=1
		agflow() { "` + os.Args[0] + `" "$@"; }; ` +
		completionScripts["bash"] + "\n_agflow; echo ${COMPREPLY[@]}"
	c := exec.Command(bash, "-c", script)
	c.Env = append(os.Environ(), asProgram+"=1")
	if out, err := c.CombinedOutput(); err != nil || string(out) != "verify version\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestEnvironmentVariablesAreFlags(t *testing.T) {
	out, err := program([]string{"AGFLOW_JSON=1"}, "completion").Output()
	if err != nil || !strings.HasPrefix(string(out), "{") {
		t.Errorf("%s, %v", out, err)
	}
}
