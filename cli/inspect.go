package main

import (
	"agflow/bridge/ipcfile"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
)

func inspectCommand() *cli.Command {
	return command(cli.Command{
		Name: "inspect", Usage: "show the columns and metadata of files",
		Category: fileSteps, ArgsUsage: "FILE...",
		UsageText: "agflow inspect plan.arrow",
	}, func(c *cli.Context) (outcome, error) {
		var infos []ipcfile.Info
		var b strings.Builder
		for _, path := range c.Args().Slice() {
			info, err := ipcfile.Inspect(path)
			if err != nil {
				return outcome{infos, b.String()}, err
			}
			infos = append(infos, info)
			writeInfo(&b, info)
		}
		return outcome{infos, b.String()}, nil
	})
}

func writeInfo(b *strings.Builder, info ipcfile.Info) {
	kind := oneLine(info.Kind)
	if !info.Checksum {
		kind = strings.TrimPrefix(kind+", an Arrow file of another program (no checksum)", ", ")
	}
	fmt.Fprintf(b, "%s: %s, %d rows, %d bytes\n", oneLine(info.Path), kind, info.Rows, info.Bytes)
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, column := range info.Columns {
		fmt.Fprintf(table, "  column\t%s\t%s\n", oneLine(column.Name), column.Type)
	}
	for _, key := range slices.Sorted(maps.Keys(info.Metadata)) {
		fmt.Fprintf(table, "  metadata\t%s\t%s\n", oneLine(key),
			oneLine(shortened(info.Metadata[key])))
	}
	table.Flush()
}

// longText is what fits a few lines of a terminal; the costs of a model are longer. --json shows
// all of a text.
const longText = 400

func shortened(text string) string {
	if len(text) <= longText {
		return text
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:longText/2], ""), len(text))
}
