package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

//go:generate go test -run TestReadmeHasEveryCommand -update .

var update = flag.Bool("update", false, "write the generated part of README.md")

// generated separates the part of README.md that is written by hand from the reference.
const generated = "<!-- All below is generated: go generate ./cli -->\n"

func TestReadmeHasEveryCommand(t *testing.T) {
	content, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	head, tail, found := strings.Cut(string(content), generated)
	if !found {
		t.Fatalf("README.md has no line %q", generated)
	}
	want := reference(newApp(nil, nil))
	if *update {
		if err := os.WriteFile("README.md", []byte(head+generated+want), 0o666); err != nil {
			t.Fatal(err)
		}
		tail = want
	}
	if tail != want {
		t.Error("the commands of README.md are not those of the program: run go generate ./cli")
	}
	for number, line := range strings.Split(head+want, "\n") {
		if utf8.RuneCountInString(line) > 120 {
			t.Errorf("line %d of README.md is longer than 120 columns: %s", number+1, line)
		}
	}
}

// reference lists the commands in the order of the program, a category after the other.
func reference(app *cli.App) string {
	var b strings.Builder
	category := ""
	for _, c := range app.Commands {
		if c.Category != category {
			category = c.Category
			fmt.Fprintf(&b, "\n## %s\n", category)
		}
		writeCommand(&b, "agflow "+c.Name, c)
		for _, benchmark := range c.Subcommands {
			writeCommand(&b, "agflow "+c.Name+" "+benchmark.Name, benchmark)
		}
	}
	b.WriteString("\n## Options of agflow and of every command\n\n```text\n")
	writeFlags(&b, app.Flags)
	b.WriteString("```\n")
	return b.String()
}

func writeCommand(b *strings.Builder, name string, c *cli.Command) {
	fmt.Fprintf(b, "\n### %s\n\n", name)
	paragraph := strings.ToUpper(c.Usage[:1]) + c.Usage[1:] + "."
	if c.Description != "" {
		paragraph += " " + c.Description
	}
	fmt.Fprintln(b, wrapped(paragraph, 120, ""))
	if len(c.Subcommands) > 0 {
		return
	}
	fmt.Fprintf(b, "\n```text\n%s\n", strings.TrimSpace(name+" [options] "+c.ArgsUsage))
	for _, isNeeded := range []bool{true, false} {
		var flags []cli.Flag
		for _, f := range c.Flags {
			isCommon := f.(cli.CategorizableFlag).GetCategory() == everywhere
			if needed(f) == isNeeded && !isCommon {
				flags = append(flags, f)
			}
		}
		if isNeeded && len(flags) > 0 {
			fmt.Fprintln(b, "\nNeeded:")
		} else if len(flags) > 0 {
			fmt.Fprintln(b, "\nOptions:")
		}
		writeFlags(b, flags)
	}
	b.WriteString("```\n")
}

func writeFlags(b *strings.Builder, flags []cli.Flag) {
	const column = 30
	for _, f := range flags {
		documented := f.(cli.DocGenerationFlag)
		usage := documented.GetUsage()
		name := "  --" + f.Names()[0]
		if parts := strings.SplitN(usage, "`", 3); len(parts) == 3 {
			name += " " + parts[1]
			usage = strings.Join(parts, "")
		}
		text := strings.ReplaceAll(documented.GetDefaultText(), `"`, "")
		if _, isSwitch := f.(*cli.BoolFlag); !isSwitch && text != "" {
			usage += " (default: " + text + ")"
		}
		usage = wrapped(usage, 120-column, strings.Repeat(" ", column))
		fmt.Fprintf(b, "%-*s%s\n", column, name, usage)
	}
}

// wrapped breaks a text into lines of at most width columns and indents all but the first.
func wrapped(text string, width int, indent string) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line+" "+word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return strings.Join(append(lines, line), "\n"+indent)
}
