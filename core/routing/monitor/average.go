package monitor

import (
	"fmt"

	"agflow/core/fault"
)

// Replicas is what the reports of several replicas of one cascade say together.
type Replicas struct {
	Replicas int     `json:"replicas"`
	Promise  string  `json:"promise"`  // as in [Report]
	Images   int64   `json:"images"`   // answered, by all
	Audited  int64   `json:"audited"`  // of these, sent to the heavy expert for the audit alone
	Labelled int64   `json:"labelled"` // audited images whose label is known
	Watches  []Watch `json:"watches"`  // with the mean of the evidence
	Router   string  `json:"router"`   // SHA-256 of router.json
}

// Average returns what replicas of one cascade say together, from their reports. The mean of their
// evidence is evidence again, however the replicas depend on each other, and raises the alarm at
// the same limit (Vovk and Wang 2021). A replica that began later counts 1 until then. One monitor
// over the audit records of all replicas finds a change sooner.
//
// Errors: empty (no report), value (reports of several routers, or of other watches).
func Average(reports []Report) (Replicas, error) {
	if len(reports) == 0 {
		return Replicas{}, fault.New(fault.Empty, "no report was given; give one of each replica")
	}
	first := reports[0]
	all := Replicas{
		Replicas: len(reports), Promise: first.Promise, Router: first.Router,
		Watches: append([]Watch{}, first.Watches...),
	}
	for i, r := range reports {
		all.Images += r.Images
		all.Audited += r.Audited
		all.Labelled += r.Labelled
		if r.Router != first.Router || len(r.Watches) != len(first.Watches) {
			return Replicas{}, fault.New(fault.Value, "report %d is of the router %.12s and the "+
				"first of %.12s; average reports of one router", i+1, r.Router, first.Router)
		}
		for k, w := range r.Watches {
			of := first.Watches[k]
			if w.Name != of.Name || w.Needs != of.Needs || w.Off != of.Off {
				return Replicas{}, fault.New(fault.Value, "report %d watches %s at level %v and "+
					"the first %s at %v; average reports of equal options", i+1, w.Name, w.Level,
					of.Name, of.Level)
			}
		}
	}
	for k := range all.Watches {
		all.Watches[k].average(reports, k, all.Images)
	}
	return all, nil
}

// average makes a watch that of all replicas, whose watch k it is.
func (w *Watch) average(reports []Report, k int, images int64) {
	raised := 0
	w.Evidence, w.Alarm, w.Says = 0, nil, "off: "+w.Off
	for _, r := range reports {
		w.Evidence += r.Watches[k].Evidence
		if r.Watches[k].Alarm != nil {
			raised++
		}
	}
	w.Evidence /= float64(len(reports))
	if w.Off != "" {
		return
	}
	says := "no alarm"
	if w.Evidence >= w.Needs {
		w.Alarm, says = &Alarm{Image: images, Evidence: w.Evidence}, "alarm"
	}
	w.Says = fmt.Sprintf("%s: mean evidence %.3g of %g; %d of %d replicas raised an alarm of "+
		"their own", says, w.Evidence, w.Needs, raised, len(reports))
}
