package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"agflow/bridge/tables"
	"agflow/core/routing"

	"github.com/urfave/cli/v2"
)

// Answers of any two systems, in files that other programs wrote: Python reads them, and what
// follows is the same as of predictions that agflow wrote.

// answerFlags name files of answers beside or instead of --predictions.
func answerFlags(predictions string) []cli.Flag {
	return inputs(
		place("predictions", predictions),
		place("light", "instead, the light expert's logits, or predicted classes, in a "+
			"`FILE[:COLUMN]`: npy, npz, parquet, Arrow or csv"),
		place("heavy", "the heavy expert's in a `FILE[:COLUMN]`, of the same images in the same "+
			"order"),
		place("labels", "the classes of the images in a `FILE[:COLUMN]`"),
		place("light-prior", "the light expert's confidence in a `FILE[:COLUMN]`, where --light "+
			"has predicted classes"),
		&cli.StringSliceFlag{Name: "classes", Usage: "`NAMES` of the classes in the order of the " +
			"logits, where labels are names"},
		cost("cost", "cost of the light expert, as a `SHARE` of the heavy one's"),
		cost("light-cost", "cost of one image through the light expert, a `NUMBER`"),
		cost("heavy-cost", "cost of one image through the heavy expert, a `NUMBER`"),
		place("cost-unit", "`UNIT` of both costs: ms, EUR, MACs"),
	)
}

// cost is a number that only some files need.
func cost(name, usage string) *cli.Float64Flag {
	return &cli.Float64Flag{Name: name, Usage: usage, DefaultText: "that of the file"}
}

// givenCost is the cost that the flags say, nil where they say none.
func givenCost(c *cli.Context) (*routing.Cost, error) {
	share, light, heavy := c.IsSet("cost"), c.IsSet("light-cost"), c.IsSet("heavy-cost")
	unit := c.String("cost-unit")
	switch {
	case share && (light || heavy || unit != ""):
		return nil, usageError("--cost is a share of the heavy expert's cost: give it alone, or " +
			"--light-cost, --heavy-cost and --cost-unit")
	case light != heavy:
		return nil, usageError("only one of --light-cost and --heavy-cost was given: give both, " +
			"or the light expert's as a share of the heavy one's, such as --cost 0.25")
	case share:
		return checkedCost(routing.Cost{Light: c.Float64("cost"), Heavy: 1, Unit: routing.Relative})
	case !light && unit != "":
		return nil, usageError("--cost-unit is %q, and no cost was given: give --light-cost and "+
			"--heavy-cost in it", unit)
	case !light:
		return nil, nil
	case unit == "":
		unit = routing.Relative
	}
	return checkedCost(
		routing.Cost{Light: c.Float64("light-cost"), Heavy: c.Float64("heavy-cost"), Unit: unit})
}

func checkedCost(cost routing.Cost) (*routing.Cost, error) {
	if _, err := routing.NewLedger(cost, 1, 0); err != nil {
		return nil, err
	}
	return &cost, nil
}

// checkAnswers refuses files of answers of which one is missing, or is not there.
func checkAnswers(c *cli.Context) error {
	predictions, light := c.String("predictions"), c.String("light")
	others := []string{"heavy", "labels", "light-prior"}
	if light == "" {
		for _, name := range others {
			if c.String(name) != "" {
				return usageError("--%s was given without --light: give both", name)
			}
		}
		if predictions == "" {
			return usageError("--predictions is missing: give it, or --light, --heavy, --labels "+
				"and --cost for answers of any two systems; see %s --help", c.Command.HelpName)
		}
		return nil
	}
	if predictions != "" {
		return usageError("--predictions and --light were given: give one of them")
	}
	for _, name := range append([]string{"light"}, others...) {
		spec := c.String(name)
		if spec == "" && name != "light-prior" {
			return usageError("--%s is missing, which --light needs: see %s --help", name,
				c.Command.HelpName)
		}
		if spec == "" {
			continue
		}
		if err := checkInput("--"+name, specFile(spec)); err != nil {
			return err
		}
	}
	return nil
}

// specFile is the file of FILE or FILE:COLUMN.
func specFile(spec string) string {
	if _, err := os.Stat(spec); err != nil {
		if at := strings.LastIndex(spec, ":"); at > 0 {
			return spec[:at]
		}
	}
	return spec
}

// isForeign reports whether Python reads the answers: those of separate files, and a table in a
// form, or with columns, that agflow does not write.
func isForeign(c *cli.Context) bool {
	return c.String("light") != "" || !tables.ReadsPredictions(c.String("predictions"))
}

// askAnswers lets a function of Python read the files and returns what it makes of them.
func askAnswers(c *cli.Context, function string, more map[string]any, result any) error {
	options := pythonOptions(c)
	paid, err := givenCost(c)
	if err != nil {
		return err
	}
	options["light_cost"] = nil
	if paid != nil {
		options["light_cost"], options["heavy_cost"] = paid.Light, paid.Heavy
		options["cost_unit"] = paid.Unit
	}
	for name, value := range more {
		options[name] = value
	}
	request, err := json.Marshal(options)
	if err != nil {
		return err
	}
	answer, err := callPython(c, "agflow.commands", function, string(request))
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(answer), result); err != nil {
		return pythonError(fmt.Errorf("agflow.commands.%s returned no JSON object: %w", function,
			err))
	}
	return nil
}
