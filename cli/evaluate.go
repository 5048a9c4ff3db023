package main

import "github.com/urfave/cli/v2"

func evaluateCommand() *cli.Command {
	return hostedCommand(cli.Command{
		Name:  "evaluate",
		Usage: "measure the accuracy of a model",
		Flags: []cli.Flag{
			modelFlag(), weightsFlag(), testDataFlag("data", "`DATA` with the test images"),
			batchSizeFlag(), seedFlag(), labelFlag(), limitFlag(),
		},
	})
}
