package main

import (
	"fmt"
	"strings"

	"agflow/core/routing/monitor"

	"github.com/urfave/cli/v2"
)

// watchReplicas adds up the evidence that several servers of one cascade have saved.
func watchReplicas(c *cli.Context, began monitorStart) (outcome, error) {
	if state := c.String("state"); state != "" {
		return outcome{}, usageError("--state is %s, and the evidence of servers is added up, not "+
			"continued: leave --state out", state)
	}
	var reports []monitor.Report
	for _, path := range c.Args().Slice() {
		m, err := began.open(path, "give the router, the calibration and the level of its server")
		if err != nil {
			return outcome{}, err
		}
		reports = append(reports, m.Report())
	}
	all, err := monitor.Average(reports)
	if err != nil {
		return outcome{}, err
	}
	return outcome{all, replicasText(all)}, checkAlarms(c, all.Watches)
}

func replicasText(r monitor.Replicas) string {
	var b strings.Builder
	if raised := alarms(r.Watches); len(raised) > 0 {
		fmt.Fprintf(&b, "ALARM of %s\n", strings.Join(raised, ", "))
	}
	fmt.Fprintf(&b, "promised: %s\n%d images of %d replicas, %d of them audited beside those that "+
		"escalate, %d audits with labels\n\n", r.Promise, r.Images, r.Replicas, r.Audited,
		r.Labelled)
	writeWatches(&b, r.Watches)
	return b.String()
}
