package main

import (
	"reflect"

	"github.com/urfave/cli/v2"
)

// The groups of a command's flags, as its help names them.
const (
	neededGroup    = "Needed"
	inputGroup     = "Input"
	budgetGroup    = "Budget"
	methodGroup    = "Method"
	imageGroup     = "Images"
	outputGroup    = "Output"
	networkGroup   = "Network"
	watchGroup     = "Watch"
	computingGroup = "Computing"
	advancedGroup  = "Advanced"
	everywhere     = "Everywhere"
)

// groupOrder is the order in which help shows the groups; a flag of no group is an advanced one.
var groupOrder = []string{
	neededGroup, inputGroup, budgetGroup, methodGroup, outputGroup, networkGroup, watchGroup,
	computingGroup, imageGroup, advancedGroup, everywhere,
}

func inputs(flags ...cli.Flag) []cli.Flag   { return grouped(inputGroup, flags) }
func budget(flags ...cli.Flag) []cli.Flag   { return grouped(budgetGroup, flags) }
func method(flags ...cli.Flag) []cli.Flag   { return grouped(methodGroup, flags) }
func advanced(flags ...cli.Flag) []cli.Flag { return grouped(advancedGroup, flags) }
func outputs(flags ...cli.Flag) []cli.Flag  { return grouped(outputGroup, flags) }

// grouped puts the flags that have no group yet into one.
func grouped(group string, flags []cli.Flag) []cli.Flag {
	for _, flag := range flags {
		// Each of the library's types of flags has the field, and no interface sets it.
		if category := reflect.ValueOf(flag).Elem().FieldByName("Category"); category.Len() == 0 {
			category.SetString(group)
		}
	}
	return flags
}

func groupOf(flag cli.Flag) string {
	if categorized, ok := flag.(cli.CategorizableFlag); ok && categorized.GetCategory() != "" {
		return categorized.GetCategory()
	}
	return advancedGroup
}

// need makes a flag one that must be given.
func need[F cli.Flag](flag F) F {
	grouped(neededGroup, []cli.Flag{flag})
	return flag
}

func needed(flag cli.Flag) bool { return groupOf(flag) == neededGroup }
