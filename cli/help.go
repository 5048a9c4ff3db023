package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"agflow/bridge/ipcfile"

	"github.com/urfave/cli/v2"
)

const (
	helpWidth  = 100
	flagColumn = 30
)

// helpCategory is of the commands about agflow itself.
const helpCategory = "Help"

func helpCommand() *cli.Command {
	return command(cli.Command{
		Name: "help", Usage: "show the commands, or the options of one", Category: helpCategory,
		ArgsUsage: "[COMMAND]", UsageText: "agflow help plan",
	}, func(c *cli.Context) (outcome, error) {
		name, commands, text := "agflow", c.App.Commands, appHelp(c.App)
		for _, word := range c.Args().Slice() {
			found := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == word })
			if found < 0 {
				return outcome{}, unknownCommand(commands, "command", word, "agflow help")
			}
			name += " " + word
			text, commands = commandHelp(name, commands[found]), commands[found].Subcommands
		}
		return outcome{map[string]string{"help": text}, text}, nil
	})
}

func versionCommand() *cli.Command {
	return command(cli.Command{
		Name: "version", Usage: "show the version of agflow", Category: helpCategory,
		UsageText: "agflow version --json",
	}, func(c *cli.Context) (outcome, error) {
		version := map[string]any{"version": ipcfile.Version, "format": ipcfile.Format}
		return outcome{version, "agflow version " + ipcfile.Version}, nil
	})
}

// appHelp lists the commands, a category after the other.
func appHelp(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", wrapped(app.Name+": "+app.Usage, helpWidth, "  "))
	b.WriteString("  agflow COMMAND [options]\n  agflow help COMMAND\n")
	writeCommands(&b, app.Commands)
	b.WriteString("\nEverywhere:\n")
	writeFlags(&b, app.Flags, helpWidth, true)
	return b.String()
}

func writeCommands(b *strings.Builder, commands []*cli.Command) {
	category := ""
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, c := range commands {
		if c.Category != category {
			category = c.Category
			table.Flush()
			fmt.Fprintf(b, "\n%s:\n", category)
		}
		fmt.Fprintf(table, "  %s\t%s\n", c.Name, c.Usage)
	}
	table.Flush()
}

// commandHelp is the help of a command that is called name.
func commandHelp(name string, c *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", wrapped(name+": "+c.Usage, helpWidth, "  "))
	if c.Description != "" {
		fmt.Fprintf(&b, "\n%s\n", wrapped(c.Description, helpWidth, ""))
	}
	if len(c.Subcommands) > 0 {
		fmt.Fprintf(&b, "\n  %s BENCHMARK [options]\n\n", name)
		writeCommands(&b, c.Subcommands)
		return b.String()
	}
	b.WriteString("\n")
	writeUsage(&b, name, c, helpWidth, true)
	return b.String()
}

// writeUsage writes what a command is called with: its form, its example, its options in groups.
// UsageText, which the library shows in place of the form, is the example of agflow's commands.
func writeUsage(b *strings.Builder, name string, c *cli.Command, width int, everything bool) {
	fmt.Fprintf(b, "%s\n", strings.TrimSpace(name+" [options] "+c.ArgsUsage))
	if c.UsageText != "" {
		fmt.Fprintf(b, "\nExample:\n  %s\n", wrapped(c.UsageText, width-4, " \\\n      "))
	}
	for _, group := range groupOrder {
		var flags []cli.Flag
		for _, flag := range c.Flags {
			if groupOf(flag) == group && (everything || group != everywhere) {
				flags = append(flags, flag)
			}
		}
		if len(flags) > 0 {
			fmt.Fprintf(b, "\n%s:\n", group)
			writeFlags(b, flags, width, everything)
		}
	}
}

// writeFlags describes flags, with the variable of the environment that may give each one.
func writeFlags(b *strings.Builder, flags []cli.Flag, width int, withVariables bool) {
	for _, flag := range flags {
		documented := flag.(cli.DocGenerationFlag)
		usage := documented.GetUsage()
		name := "  --" + flag.Names()[0]
		if parts := strings.SplitN(usage, "`", 3); len(parts) == 3 {
			name += " " + parts[1]
			usage = strings.Join(parts, "")
		}
		text := strings.ReplaceAll(documented.GetDefaultText(), `"`, "")
		if _, isSwitch := flag.(*cli.BoolFlag); !isSwitch && text != "" {
			usage += " (default: " + text + ")"
		}
		if variables := documented.GetEnvVars(); withVariables && len(variables) > 0 {
			usage += " [$" + variables[0] + "]"
		}
		usage = wrapped(usage, width-flagColumn, strings.Repeat(" ", flagColumn))
		fmt.Fprintf(b, "%-*s%s\n", flagColumn, name, usage)
	}
}

// wrapped breaks a text into lines of at most width columns and indents all but the first. What
// the indent has before its last line break ends the lines before.
func wrapped(text string, width int, indent string) string {
	if !strings.Contains(indent, "\n") {
		indent = "\n" + indent
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line+" "+word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return strings.Join(append(lines, line), indent)
}
