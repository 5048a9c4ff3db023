package main

import (
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// commandLine is a command line taken apart. The library stops at the first argument and takes what
// follows for arguments, so it gets the flags first, whatever order they were given in.
type commandLine struct {
	command   *cli.Command // the program itself where no command is named
	path      []string     // of its name
	before    []string     // flags of the program, and their values
	flags     []string     // flags of the command, and their values
	arguments []string
	help      bool
	version   bool
	wanting   cli.Flag // the flag whose value the line ends before
}

// readLine takes the words behind the program's name apart. Its error is a flag that is unknown or
// has no value; line is then what was read before.
func readLine(app *cli.App, words []string) (line commandLine, err error) {
	line.command = &cli.Command{
		Name: app.Name, HelpName: app.Name, Flags: app.Flags, Subcommands: app.Commands,
	}
	for len(words) > 0 && err == nil {
		word := words[0]
		words = words[1:]
		switch {
		case word == "--":
			line.arguments = append(line.arguments, words...)
			return line, nil
		case isFlag(word):
			words, err = line.addFlag(word, words)
		default:
			line.add(word)
		}
	}
	return line, err
}

// isFlag tells flags from arguments, which may be negative numbers.
func isFlag(word string) bool {
	_, err := strconv.ParseFloat(word, 64)
	return len(word) > 1 && word[0] == '-' && err != nil
}

// add takes the name of a command, or an argument of it.
func (line *commandLine) add(word string) {
	if len(line.arguments) == 0 {
		if named := line.command.Command(word); named != nil {
			line.command, line.path = named, append(line.path, word)
			return
		}
	}
	line.arguments = append(line.arguments, word)
}

// addFlag takes a flag and, from the words behind it, its value. It returns the other words.
func (line *commandLine) addFlag(word string, words []string) ([]string, error) {
	name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
	flag := line.flag(name)
	switch {
	case flag == nil && (name == "help" || name == "h"):
		line.help = true
		return words, nil
	case flag == nil && (name == "version" || name == "v" || name == "V"):
		line.version = true
		return words, nil
	case flag == nil:
		return words, unknownFlag(*line, name)
	}
	given := []string{word}
	if _, isSwitch := flag.(*cli.BoolFlag); !isSwitch && !hasValue {
		switch {
		case len(words) == 0:
			line.wanting = flag
			return words, usageError("--%s needs a value behind it: see %s --help",
				name, line.name())
		case isFlag(words[0]):
			return words, usageError("--%s needs a value, and %s follows it: write --%[1]s=%[2]s "+
				"if that is the value, see %s --help", name, words[0], line.name())
		}
		given, words = append(given, words[0]), words[1:]
	}
	if len(line.command.Subcommands) > 0 {
		line.before = append(line.before, given...)
	} else {
		line.flags = append(line.flags, given...)
	}
	return words, nil
}

// flag finds a flag of the command; before the name of a command, one of the program.
func (line *commandLine) flag(name string) cli.Flag {
	flags := line.command.Flags
	if len(line.command.Subcommands) > 0 {
		flags = globalFlags()
	}
	for _, flag := range flags {
		if flag.Names()[0] == name {
			return flag
		}
	}
	return nil
}

// name is what the command is called.
func (line *commandLine) name() string {
	return strings.Join(append([]string{"agflow"}, line.path...), " ")
}

// words is the line as the library reads it.
func (line *commandLine) words() (words []string) {
	switch {
	case line.help:
		return append(append(line.before, "help"), line.path...)
	case line.version:
		return append(line.before, "version")
	}
	words = append(append(line.before, line.path...), line.flags...)
	if len(line.arguments) > 0 && len(line.command.Subcommands) == 0 {
		words = append(words, "--")
	}
	return append(words, line.arguments...)
}

// unknownFlag is the error for a flag that a command does not have, with the one that was meant.
func unknownFlag(line commandLine, name string) error {
	if len(line.path) == 0 {
		var elsewhere []string
		for _, c := range line.command.Subcommands {
			for _, flag := range c.Flags {
				if flag.Names()[0] == name {
					elsewhere = append(elsewhere, c.Name)
				}
			}
		}
		if len(elsewhere) > 0 {
			return usageError("the flag --%s stands where a command was expected: write it behind "+
				"the command's name, as in agflow %s --%[1]s", name, elsewhere[0])
		}
	}
	var known []string
	for _, flag := range line.command.Flags {
		known = append(known, flag.Names()[0])
	}
	return usageError("there is no flag --%s: %s %s --help",
		name, didYouMeanOrSee("--", name, known), line.name())
}
