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
		Name:        "inspect",
		Usage:       "show the columns and metadata of files, or what can be pruned of a model",
		Description: "Of a model: its groups of channels, where they lie, what is kept and why.",
		Category:    fileSteps, ArgsUsage: "[FILE...]",
		UsageText: "agflow inspect --model torchvision:resnet50",
		Flags: inputs(
			checked(setting("model", "instead of files, `MODEL`: timm:NAME, torchvision:NAME, "+
				"module:function, or the folder of an expert or of a Hugging Face model"),
				checkModel),
			atLeast(1, optional("image-size", "the model's",
				"describe the model at `N` x N pixels")),
		),
		Before: needFilesOrModel,
	}, func(c *cli.Context) (outcome, error) {
		if c.String("model") != "" {
			return asking("inspect_model")(c)
		}
		return inspectFiles(c.Args().Slice())
	})
}

// needFilesOrModel refuses a command without one of them, or with both.
func needFilesOrModel(c *cli.Context) error {
	switch model := c.String("model"); {
	case model == "" && c.IsSet("image-size"):
		return usageError("--image-size was given without --model: leave it out, or name the model")
	case model == "" && !c.Args().Present():
		return usageError("agflow inspect needs at least one FILE, or --model")
	case model != "" && c.Args().Present():
		return usageError("--model is %s and %q was given, too: inspect a model, or files",
			model, c.Args().First())
	}
	return nil
}

func inspectFiles(paths []string) (outcome, error) {
	var infos []ipcfile.Info
	var b strings.Builder
	for _, path := range paths {
		info, err := ipcfile.Inspect(path)
		if err != nil {
			return outcome{infos, b.String()}, err
		}
		infos = append(infos, info)
		writeInfo(&b, info)
	}
	return outcome{infos, b.String()}, nil
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
