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
	writeFlags(&b, app.Flags, 120, false)
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
	b.WriteString("\n```text\n")
	writeUsage(b, name, c, 120, false)
	b.WriteString("```\n")
}
