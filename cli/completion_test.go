package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// A shell completes the names of files itself where agflow has no words.
func TestFilesAreLeftToTheShell(t *testing.T) {
	for _, line := range []string{"route --heavy ", "prune --plan ", "inspect "} {
		words := append(strings.Split(line, " "), "--generate-bash-completion")
		if out := must(t, words...); out != "" {
			t.Errorf("%q completes to %q", line, out)
		}
	}
	if out := must(t, "predict", "--heavy", "", "--generate-bash-completion"); out == "" {
		t.Error("predict --heavy has no words")
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

// shells take a line that a person has typed so far, and print the words that it may go on with.
var shells = map[string]string{
	"bash": `set -- "$LINE"
		COMP_LINE=$1 COMP_POINT=${#1}
		read -ra COMP_WORDS <<< "${1//:/ : }"
		[[ $1 == *[\ :] ]] && COMP_WORDS+=("")
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		_agflow
		printf '%s\n' "${COMPREPLY[@]}"`,
	"zsh": `words=("${(@s: :)LINE}") CURRENT=$#words
		_files() { print FILES }
		compadd() { print -rl -- "${(@P)argv[-1]}" }
		_agflow`,
	"fish": `complete -C "$LINE"`,
}

// The scripts run in the real shells, where these are installed.
func TestShellsComplete(t *testing.T) {
	folder := fill(t, map[string]string{
		"bin/agflow":          "#!/bin/sh\nexec '" + os.Args[0] + "' \"$@\"\n",
		"data/train.parquet":  "",
		"data/.hidden":        "",
		"statistics.arrow":    "",
		"data/classes/a.json": "",
	})
	for name, ask := range shells {
		t.Run(name, func(t *testing.T) {
			shell, err := exec.LookPath(name)
			if err != nil {
				t.Skip(name + " is not on the PATH")
			}
			for line, want := range map[string]string{
				"agflow ver":                        "verify version",
				"agflow plan --pruning":             "--pruning-ratio",
				"agflow run --criterion ta":         "taylor taylor_weight",
				"agflow run --groups mlp,he":        "mlp,head_dim mlp,heads",
				"agflow run --json --data exam":     "example:test example:train",
				"agflow run --data parquet:data/t":  "parquet:data/train.parquet",
				"agflow run --data imagefolder:dat": "imagefolder:data/",
				"agflow completion f":               "fish",
				"agflow help pl":                    "plan",
				"agflow bench la":                   "layers",
			} {
				script := completionScripts[name] + "\n" + ask
				if name == "zsh" {
					script = "compdef() { true }\n" + script
				}
				c := exec.Command(shell, "-c", script)
				c.Dir = folder
				c.Env = append(os.Environ(), asProgram+"=1", "LINE="+line, "HOME="+folder,
					"PATH="+filepath.Join(folder, "bin")+":"+os.Getenv("PATH"))
				out, err := c.CombinedOutput()
				var found []string
				for _, word := range strings.Split(strings.TrimSpace(string(out)), "\n") {
					word, _, _ = strings.Cut(word, "\t")
					found = append(found, word)
				}
				if name == "bash" { // to which a colon ends a word
					if _, path, isPath := strings.Cut(want, ":data"); isPath {
						want = "data" + path
					}
				}
				slices.Sort(found) // as fish does
				if got := strings.Join(found, " "); got != want || err != nil {
					t.Errorf("%q completes to %q, want %q, %v", line, got, want, err)
				}
			}
		})
	}
}

func TestEnvironmentVariablesAreFlags(t *testing.T) {
	out, err := program([]string{"AGFLOW_JSON=1"}, "completion").Output()
	if err != nil || !strings.HasPrefix(string(out), "{") {
		t.Errorf("%s, %v", out, err)
	}
}
