package main

import "github.com/urfave/cli/v2"

// macsFlag is a recipe's budget. It has a default text and no value, because the default holds
// only where no other budget is given.
func macsFlag(step of, usage string) cli.Flag {
	return aBudget(
		&cli.StringFlag{Name: "macs", DefaultText: standard[string](step, "macs"), Usage: usage})
}

func pruningRatioFlag() cli.Flag {
	return within(0, 1, false, &cli.Float64Flag{
		Name: "pruning-ratio", DefaultText: "by --macs",
		Usage: "remove this `SHARE` of the units instead of naming MACs",
	})
}

func refuseTwoBudgets(c *cli.Context) error {
	if given := budgets(c); len(given) > 1 {
		return usageError("--%s and --%s were both given: give one budget", given[0], given[1])
	}
	return nil
}

// budgets names the flags of budgets that were given.
func budgets(c *cli.Context) (given []string) {
	for _, name := range []string{"macs", "params", "latency-ms", "pruning-ratio"} {
		if c.IsSet(name) {
			given = append(given, name)
		}
	}
	return given
}

// needOneBudget refuses a command line without a budget, or with several.
func needOneBudget(c *cli.Context) error {
	if len(budgets(c)) == 0 {
		return usageError("a budget is missing: give --macs (such as 0.5), --params or " +
			"--pruning-ratio")
	}
	return refuseTwoBudgets(c)
}
