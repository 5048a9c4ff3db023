package monitor

import (
	"fmt"

	"agflow/core/fault"
)

// Average returns the watches over replicas of one cascade, from their reports. The mean of their
// evidence is evidence again, however the replicas depend on each other, and raises the alarm at
// the same limit (Vovk and Wang 2021). A replica that began later counts 1 until then. One monitor
// over the audit records of all replicas finds a change sooner.
//
// Errors: empty (no report), value (reports of several routers, or of other watches).
func Average(reports []Report) ([]Watch, error) {
	if len(reports) == 0 {
		return nil, fault.New(fault.Empty, "no report was given; give one of each replica")
	}
	first := reports[0]
	watches := append([]Watch{}, first.Watches...)
	images := int64(0)
	for i, r := range reports {
		images += r.Images
		if r.Router != first.Router || len(r.Watches) != len(watches) {
			return nil, fault.New(fault.Value, "report %d is of the router %.12s and the first of "+
				"%.12s; average reports of one router", i+1, r.Router, first.Router)
		}
		for k, w := range r.Watches {
			all := &watches[k]
			if w.Name != all.Name || w.Needs != all.Needs || w.Off != all.Off {
				return nil, fault.New(fault.Value, "report %d watches %s at level %v and the "+
					"first %s at %v; average reports of equal options", i+1, w.Name, w.Level,
					all.Name, all.Level)
			}
			if i > 0 {
				all.Evidence += w.Evidence
			}
		}
	}
	for k := range watches {
		w := &watches[k]
		w.Evidence /= float64(len(reports))
		w.Alarm, w.Says = nil, "off: "+w.Off
		if w.Off == "" {
			w.Says = fmt.Sprintf("no alarm: evidence %.3g of %g over %d replicas", w.Evidence,
				w.Needs, len(reports))
		}
		if w.Off == "" && w.Evidence >= w.Needs {
			w.Alarm = &Alarm{Image: images, Evidence: w.Evidence}
			w.Says = fmt.Sprintf("alarm of %s: evidence %.3g of %g over %d replicas", w.Name,
				w.Evidence, w.Needs, len(reports))
		}
	}
	return watches, nil
}
