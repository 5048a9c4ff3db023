package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"agflow/bridge/tables"

	"github.com/urfave/cli/v2"
)

// What the command line and files alone can tell is said before Python starts, which takes
// seconds. A check belongs to its flag, as the library's Action, and sees values that were given.

// failure is an error of the files that were named.
func failure(format string, values ...any) error {
	return statusError{fmt.Errorf(format, values...), exitFailed}
}

// checked gives the value of a text flag to a check.
func checked(
	flag *cli.StringFlag, check func(c *cli.Context, name, value string) error,
) *cli.StringFlag {
	flag.Action = func(c *cli.Context, value string) error {
		if value == "" {
			return nil // as if it had not been given
		}
		return check(c, flag.Name, value)
	}
	return flag
}

// inputFile is a file that Python reads.
func inputFile(flag *cli.StringFlag) *cli.StringFlag {
	return checked(flag, func(_ *cli.Context, name, path string) error {
		return checkInput("--"+name, path)
	})
}

// inputPlan is a plan that Python follows.
func inputPlan(flag *cli.StringFlag) *cli.StringFlag {
	return checked(flag, func(_ *cli.Context, name, path string) error {
		if err := checkInput("--"+name, path); err != nil {
			return err
		}
		_, err := load(path, tables.KindPlan, tables.PlanFromRecord)
		return err
	})
}

// inputExpert is the folder of an expert, or the file of an exported one.
func inputExpert(flag *cli.StringFlag) *cli.StringFlag {
	return checked(flag, func(_ *cli.Context, name, path string) error {
		if file := exportedFile(path); file != "" {
			return checkInput("--"+name, file)
		}
		return checkModelFolder(name, path)
	})
}

// atLeast is a number that is no smaller, or a list of such numbers.
func atLeast[F cli.Flag](least int, flag F) F {
	check := func(name string, value int) error {
		if value < least {
			return usageError("--%s is %d, expected a whole number of at least %d",
				name, value, least)
		}
		return nil
	}
	switch f := any(flag).(type) {
	case *cli.IntFlag:
		f.Action = func(_ *cli.Context, value int) error { return check(f.Name, value) }
	case *cli.IntSliceFlag:
		f.Action = func(_ *cli.Context, values []int) error {
			for _, value := range values {
				if err := check(f.Name, value); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return flag
}

// within is a number between two others, which it may be if closed.
func within(low, high float64, closed bool, flag *cli.Float64Flag) *cli.Float64Flag {
	expected := fmt.Sprintf("between %g and %g", low, high)
	if math.IsInf(high, 1) {
		expected = fmt.Sprintf("above %g", low)
		if closed {
			expected = fmt.Sprintf("of at least %g", low)
		}
	}
	flag.Action = func(_ *cli.Context, value float64) error {
		inside := low < value && value < high
		if inside || closed && (value == low || value == high) {
			return nil
		}
		return usageError("--%s is %g, expected a number %s", flag.Name, value, expected)
	}
	return flag
}

// shares are parts of a whole, above 0 and up to 1.
func shares(flag *cli.Float64SliceFlag) *cli.Float64SliceFlag {
	flag.Action = func(_ *cli.Context, values []float64) error {
		for _, value := range values {
			if !(0 < value && value <= 1) {
				return usageError("--%s has %g, expected shares above 0 and up to 1, such as 0.5",
					flag.Name, value)
			}
		}
		return nil
	}
	return flag
}

// learningRate is a number above 0.
func learningRate(flag *cli.Float64Flag) *cli.Float64Flag {
	return within(0, math.Inf(1), false, flag)
}

var amount = regexp.MustCompile(`^[0-9.]+(e[+-]?[0-9]+)?[KMGT]?$`)

// aBudget is a share of the dense model, or an amount such as 350M.
func aBudget(flag *cli.StringFlag) *cli.StringFlag {
	return checked(flag, func(_ *cli.Context, name, text string) error {
		share, err := strconv.ParseFloat(text, 64)
		switch {
		case err == nil && share > 1 && share < 1000:
			return usageError("--%s is %s, which is more than the whole model: give a share of it "+
				"up to 1, such as 0.5, or an amount such as 350M", name, text)
		case !amount.MatchString(text) || err == nil && share <= 0:
			return usageError("--%s is %q, expected a share of the model above 0 and up to 1, "+
				"such as 0.5, or an amount such as 350M or 1.2G", name, text)
		}
		return nil
	})
}

var device = regexp.MustCompile(`^[a-z]+(:[0-9]+)?$`)

func aDevice(flag *cli.StringFlag) *cli.StringFlag {
	return checked(flag, func(_ *cli.Context, name, text string) error {
		if device.MatchString(text) {
			return nil
		}
		return usageError("--%s is %q, expected a device as torch names it: cpu, cuda or cuda:1",
			name, text)
	})
}

// checkPlaces refuses an output that cannot be written, and one that is an input.
func checkPlaces(c *cli.Context) error {
	output := c.String("output")
	if output == "" {
		return nil
	}
	for folder := filepath.Dir(filepath.Clean(output)); ; folder = filepath.Dir(folder) {
		found, err := os.Stat(folder)
		if err != nil && errors.Is(err, os.ErrNotExist) && folder != filepath.Dir(folder) {
			continue
		}
		if err == nil && found.IsDir() {
			if !writable(folder) {
				return failure("--output is %s, and nothing can be written in %s: check the "+
					"rights of the folder, or give another path", output, folder)
			}
			break
		}
		return failure("--output is %s, and %s is a file, not a folder: give another path",
			output, folder)
	}
	target, err := os.Stat(output)
	if err != nil {
		return nil // it is not there yet
	}
	for flag, path := range inputPaths(c) {
		if input, err := os.Stat(path); err == nil && os.SameFile(target, input) {
			return usageError("--output is %s, which is also read as %s: it would be lost, so "+
				"give another --output", output, flag)
		}
	}
	return nil
}

// inputPaths are the files and folders that a command reads, by their flags.
func inputPaths(c *cli.Context) map[string]string {
	paths := map[string]string{}
	for _, flag := range c.Command.Flags {
		text, isText := flag.(*cli.StringFlag)
		if !isText || groupOf(flag) == outputGroup || text.Name == "output" {
			continue
		}
		value := c.String(text.Name)
		if form, path, _ := strings.Cut(value, ":"); slices.Contains(pathForms, form) {
			value, _, _ = strings.Cut(path, "#")
		}
		if value != "" {
			paths["--"+text.Name] = value
		}
	}
	for _, argument := range c.Args().Slice() {
		paths[argument] = argument
	}
	return paths
}
