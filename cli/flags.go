package main

import (
	"encoding/json"
	"strings"

	"agflow/core/criteria"

	"github.com/urfave/cli/v2"
)

const everywhere = "Everywhere:"

// commonFlags may stand before and behind the name of a command.
func commonFlags() (json, debug *cli.BoolFlag, python *cli.StringFlag) {
	return &cli.BoolFlag{Name: "json", Usage: "print one JSON object for machines", DisableDefaultText: true, Category: everywhere},
		&cli.BoolFlag{Name: "debug", Usage: "show Python tracebacks", DisableDefaultText: true, Category: everywhere},
		&cli.StringFlag{Name: "python", Usage: "`INTERPRETER` of the environment whose packages hosted Python uses", Category: everywhere}
}

// globalFlags stand before the command's name, and alone read the environment: a flag on either side comes before it.
func globalFlags() []cli.Flag {
	json, debug, python := commonFlags()
	json.EnvVars, debug.EnvVars, python.EnvVars = env("json"), env("debug"), env("python")
	return []cli.Flag{json, debug, python}
}

// asked tells whether a common switch was given on either side of the command's name.
func asked(c *cli.Context, name string) bool {
	for _, level := range c.Lineage() {
		if level.Bool(name) {
			return true
		}
	}
	return false
}

// python is the interpreter asked for, on either side of the command's name.
func python(c *cli.Context) string {
	for _, level := range c.Lineage() {
		if program := level.String("python"); program != "" {
			return program
		}
	}
	return ""
}

// env is the environment variable of a flag: --batch-size is AGFLOW_BATCH_SIZE.
func env(name string) []string {
	return []string{"AGFLOW_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
}

const neededCategory = "Needed:"

// need is a flag that must be given.
func need(name, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Usage: usage, Category: neededCategory}
}

func needed(flag cli.Flag) bool {
	categorized, ok := flag.(cli.CategorizableFlag)
	return ok && categorized.GetCategory() == neededCategory
}

// place is a file or folder to write, or another flag of one call only.
func place(name, value, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage}
}

// text, number, fraction, toggle, numbers and list are settings, which the environment may give too. A number with a defaultText has no
// value of its own: Python sees null, and chooses.
func text(name, value, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func number(name string, value int, defaultText, usage string) *cli.IntFlag {
	return &cli.IntFlag{Name: name, Value: value, DefaultText: defaultText, Usage: usage, EnvVars: env(name)}
}

func fraction(name string, value float64, usage string) *cli.Float64Flag {
	return &cli.Float64Flag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func list(name string, value []string, usage string) *cli.StringSliceFlag {
	return &cli.StringSliceFlag{Name: name, Value: cli.NewStringSlice(value...), Usage: usage, EnvVars: env(name)}
}

func toggle(name, usage string) *cli.BoolFlag {
	return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: env(name), DisableDefaultText: true}
}

func numbers(name string, value []int, usage string) *cli.IntSliceFlag {
	return &cli.IntSliceFlag{Name: name, Value: cli.NewIntSlice(value...), Usage: usage, EnvVars: env(name)}
}

// Flags that several commands share.
func modelFlag() cli.Flag {
	return text("model", "example", "`MODEL`: example, timm:NAME, module:function or the folder of an expert")
}

func weightsFlag() cli.Flag {
	return text("weights", "", "safetensors `FILE` with the model's weights")
}

func dataFlag() cli.Flag {
	return text("data", "example:train", "`DATA`: example:train, parquet:FILE, npz:FILE or imagefolder:DIR")
}
func labelFlag() cli.Flag     { return text("label", "", "`COLUMN` of the labels in a parquet file") }
func limitFlag() cli.Flag     { return number("limit", 0, "all", "read at most `N` images of the data") }
func batchesFlag() cli.Flag   { return number("batches", 20, "", "calibrate on `N` batches") }
func batchSizeFlag() cli.Flag { return number("batch-size", 32, "", "`N` images a batch") }
func seedFlag() cli.Flag      { return number("seed", 0, "", "seed of everything that is drawn") }

// seed reads the seed of a step on files.
func seed(c *cli.Context) (uint64, error) {
	if c.Int("seed") < 0 {
		return 0, usageError("--seed is %d: seeds are whole numbers from 0", c.Int("seed"))
	}
	return uint64(c.Int("seed")), nil
}

func groupsFlag() cli.Flag {
	return list("groups", []string{"mlp", "heads"}, "`GROUPS` of units to look at")
}

func compensateFlag(value string) cli.Flag {
	return text("compensate", value, "repair of the cut: ridge, ridge_at_once, mean or none")
}

func ratioFlag() cli.Flag {
	return &cli.Float64Flag{Name: "pruning-ratio", DefaultText: "by --macs", Usage: "remove this `SHARE` of the units instead of naming MACs"}
}

func roundToFlag() cli.Flag {
	return number("round-to", 8, "", "keep a multiple of `N` channels in each MLP, in the stream and inside each head")
}

func ignoredLayersFlag() cli.Flag {
	return list("ignored-layers", nil, "`LAYERS` to leave alone: names or patterns")
}

func criterionFlag() cli.Flag {
	return text("criterion", "agf", "`NAME` of the score: "+strings.Join(criteria.Names(), ", "))
}

func toleranceFlag() cli.Flag {
	return fraction("tolerance", 0.005, "`ACCURACY` that the cascade may lose against the heavy expert")
}

func confidenceFlag() cli.Flag {
	return fraction("confidence", 0.95, "`PROBABILITY` with which that must hold")
}

// pythonOptions is what Python gets of a command's flags: a JSON object, names with underscores, null for what has
// neither been given nor has a default.
func pythonOptions(c *cli.Context) (string, error) {
	options := map[string]any{}
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		key := strings.ReplaceAll(name, "-", "_")
		var chosen any
		switch f := flag.(type) {
		case *cli.StringFlag:
			if value := c.String(name); value != "" {
				chosen = value
			}
		case *cli.BoolFlag:
			if f.Category == everywhere || f == cli.HelpFlag { // a switch of the command itself
				continue
			}
			chosen = c.Bool(name)
		case *cli.StringSliceFlag:
			chosen = append([]string{}, c.StringSlice(name)...)
		case *cli.IntSliceFlag:
			chosen = append([]int{}, c.IntSlice(name)...)
		case *cli.IntFlag:
			if c.IsSet(name) || f.DefaultText == "" {
				chosen = c.Int(name)
			}
		case *cli.Float64Flag:
			if c.IsSet(name) || f.DefaultText == "" {
				chosen = c.Float64(name)
			}
		}
		options[key] = chosen
	}
	delete(options, "python")
	encoded, err := json.Marshal(options)
	return string(encoded), err
}
