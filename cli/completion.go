package main

import "github.com/urfave/cli/v2"

// bashCompletion asks the installed agflow, so it knows every command and flag of that version.
const bashCompletion = `_agflow() {
	local words=("${COMP_WORDS[@]:0:$COMP_CWORD}") current=${COMP_WORDS[COMP_CWORD]}
	[[ $current == -* ]] && words+=("$current")
	local known=$("${words[@]}" --generate-bash-completion 2>/dev/null)
	COMPREPLY=($(compgen -W "$known" -- "$current"))
}
complete -o bashdefault -o default -F _agflow agflow`

func completionCommand() *cli.Command {
	return command(cli.Command{
		Name: "completion", Usage: "print the completion for bash: source <(agflow completion)",
		Category: helpCategory,
	}, func(*cli.Context) (outcome, error) {
		return outcome{map[string]string{"bash": bashCompletion}, bashCompletion}, nil
	})
}
