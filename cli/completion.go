package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completionScripts ask the installed agflow, so they know every command and flag of that version.
// What it has no word for is the name of a file. Bash breaks words at colons, so that what agflow
// finds is shortened by what bash takes for another word.
var completionScripts = map[string]string{
	"bash": `_agflow() {
	local line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} words
	read -ra words <<< "$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	[[ $current == : ]] && current=
	local whole=${words[-1]}
	local found=$("${words[@]}" ` + completionFlag + ` 2>/dev/null | cut -f 1)
	local IFS=$'\n'
	COMPREPLY=($(compgen -W "$found" -- "$whole"))
	COMPREPLY=("${COMPREPLY[@]#"${whole%"$current"}"}")
	[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:/] ]] && compopt -o nospace 2>/dev/null
}
complete -o bashdefault -o default -F _agflow agflow`,

	"zsh": `#compdef agflow
_agflow() {
	local -a words_before=("${(@)words[1,CURRENT]}") found names
	found=("${(@f)$("${words_before[@]}" ` + completionFlag + ` 2>/dev/null)}")
	found=("${(@)found:#}")
	(( $#found )) || { _files; return }
	names=("${(@)found%%$'\t'*}")
	local -a whole=("${(@)names:#*[:\/]}") part=("${(M@)names:#*[:\/]}")
	if (( $#whole )); then compadd -a whole; fi
	if (( $#part )); then compadd -S '' -a part; fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _agflow "$@"; else compdef _agflow agflow; fi`,

	"fish": `function __agflow_complete
	set -l words (commandline -opc) (commandline -ct)
	set -l found ($words ` + completionFlag + ` 2>/dev/null)
	if test (count $found) -gt 0
		printf '%s\n' $found
	else
		__fish_complete_path (commandline -ct)
	end
end
complete -c agflow -f -a '(__agflow_complete)'`,
}

func completionCommand() *cli.Command {
	shells := slices.Sorted(maps.Keys(completionScripts))
	return command(cli.Command{
		Name: "completion", Usage: "print the completion for a shell: bash, zsh or fish",
		Description: "For bash and zsh: source <(agflow completion SHELL). For fish: agflow " +
			"completion fish | source.",
		Category: helpCategory, ArgsUsage: "[SHELL]", UsageText: "agflow completion zsh",
	}, func(c *cli.Context) (outcome, error) {
		shell := "bash"
		if c.Args().Present() {
			shell = c.Args().First()
		}
		script, known := completionScripts[shell]
		if !known {
			return outcome{}, oneOf("the shell", shell, shells)
		}
		return outcome{map[string]string{shell: script}, script}, nil
	})
}

// completionFlag, at the end of a line, asks for the words that its last word may become.
const completionFlag = "--generate-bash-completion"

// printCompletions prints a word a line and, behind a tab, what it is.
func printCompletions(app *cli.App, words []string) error {
	if len(words) == 0 {
		words = []string{""}
	}
	before, current := words[:len(words)-1], words[len(words)-1]
	line, err := readLine(app, before)
	if err != nil && line.wanting == nil {
		return nil // no word makes a wrong line right
	}
	for _, word := range candidates(line, current) {
		if strings.HasPrefix(word, current) {
			if _, err := fmt.Fprintln(app.Writer, word); err != nil {
				return err
			}
		}
	}
	return nil
}

// candidates are the words that may stand at the end of a line; those of a list begin with what
// the list has already.
func candidates(line commandLine, current string) (found []string) {
	switch {
	case line.wanting != nil:
		return valuesOf(line.wanting, current)
	case strings.HasPrefix(current, "-"):
		for _, flag := range append(line.command.Flags, &cli.BoolFlag{
			Name: "help", Usage: "show this command's options",
		}) {
			name, usage := flag.Names()[0], flag.(cli.DocGenerationFlag).GetUsage()
			found = append(found, "--"+name+"\t"+strings.ReplaceAll(usage, "`", ""))
		}
	case line.command.Name == "completion":
		return slices.Sorted(maps.Keys(completionScripts))
	default:
		commands := line.command.Subcommands
		if line.command.Name == "help" {
			commands = newApp(nil, nil).Commands
		}
		for _, c := range commands {
			found = append(found, c.Name+"\t"+c.Usage)
		}
	}
	return found
}
