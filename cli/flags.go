package main

import (
	"strings"

	"agflow/core/defaults"

	"github.com/urfave/cli/v2"
)

// commonFlags may stand before and behind the name of a command.
func commonFlags() (json, debug *cli.BoolFlag, python *cli.StringFlag) {
	return &cli.BoolFlag{
			Name: "json", Usage: "print one JSON object for machines",
			DisableDefaultText: true, Category: everywhere,
		},
		&cli.BoolFlag{
			Name: "debug", Usage: "show Python tracebacks",
			DisableDefaultText: true, Category: everywhere,
		},
		&cli.StringFlag{
			Name:     "python",
			Usage:    "`INTERPRETER` of the environment whose packages hosted Python uses",
			Category: everywhere,
		}
}

// globalFlags stand before the command's name. They alone read the environment, so that a flag on
// either side of the name has precedence over it.
func globalFlags() []cli.Flag {
	json, debug, python := commonFlags()
	json.EnvVars, debug.EnvVars, python.EnvVars = env("json"), env("debug"), env("python")
	return []cli.Flag{json, debug, python}
}

// asked reports whether a common switch was given on either side of the command's name.
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
	return []string{"AGFLOW_" + strings.ToUpper(underscored(name))}
}

// underscored is a name as JSON, Python and the environment write it.
func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

// place is a file or folder, or another value of one call only: the environment does not give it.
func place(name, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Usage: usage, TakesFile: true}
}

// setting is a text without a default. As all settings, the environment may give it.
func setting(name, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

// settings is a list without a default.
func settings(name, usage string) *cli.StringSliceFlag {
	return &cli.StringSliceFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

// optional is a number without a default: without it Python gets null, which means defaultText.
func optional(name, defaultText, usage string) *cli.IntFlag {
	return &cli.IntFlag{Name: name, DefaultText: defaultText, Usage: usage, EnvVars: env(name)}
}

// of is the step that a flag belongs to: the flag's default is that of core/defaults.
type of string

const common of = "common"

func standard[T any](step of, name string) T {
	return defaults.Of[T](string(step), underscored(name))
}

// output is the file or folder that a step writes.
func (step of) output(usage string) *cli.StringFlag {
	return &cli.StringFlag{
		Name: "output", Value: standard[string](step, "output"), Usage: usage,
		Category: outputGroup,
	}
}

func (step of) text(name, usage string) *cli.StringFlag {
	return &cli.StringFlag{
		Name: name, Value: standard[string](step, name), Usage: usage, EnvVars: env(name),
	}
}

func (step of) number(name, usage string) *cli.IntFlag {
	return &cli.IntFlag{
		Name: name, Value: standard[int](step, name), Usage: usage, EnvVars: env(name),
	}
}

func (step of) fraction(name, usage string) *cli.Float64Flag {
	return &cli.Float64Flag{
		Name: name, Value: standard[float64](step, name), Usage: usage, EnvVars: env(name),
	}
}

func (step of) toggle(name, usage string) *cli.BoolFlag {
	return &cli.BoolFlag{
		Name: name, Value: standard[bool](step, name), Usage: usage, EnvVars: env(name),
		DisableDefaultText: true,
	}
}

func (step of) list(name, usage string) *cli.StringSliceFlag {
	value := cli.NewStringSlice(standard[[]string](step, name)...)
	return &cli.StringSliceFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func (step of) numbers(name, usage string) *cli.IntSliceFlag {
	value := cli.NewIntSlice(standard[[]int](step, name)...)
	return &cli.IntSliceFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func (step of) fractions(name, usage string) *cli.Float64SliceFlag {
	value := cli.NewFloat64Slice(standard[[]float64](step, name)...)
	return &cli.Float64SliceFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}
