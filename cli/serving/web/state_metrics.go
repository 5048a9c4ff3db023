package web

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"agflow/cli/serving"
)

// stateCollector reads the served model, its calibration and the monitor when it is scraped: all
// of them change with a reload.
type stateCollector struct{ cascade serving.Cascade }

// Describe names nothing: the monitor's metrics are known when they are read.
func (stateCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the gauges of this moment.
func (c stateCollector) Collect(into chan<- prometheus.Metric) {
	send := func(name, help string, value float64, labels prometheus.Labels) {
		into <- prometheus.MustNewConstMetric(
			prometheus.NewDesc(name, help, nil, labels), prometheus.GaugeValue, value,
		)
	}
	held := c.cascade.Hold()
	defer held.Release()
	model, state := held.Model(), c.cascade.State()
	point, ledger := model.Router.Point, model.Router.Ledger
	send("agflow_model_info", "1, with what is served.", 1, prometheus.Labels{
		"model": model.Name, "revision": model.Revision, "runtime": model.Runtime,
		"prior": model.Router.Prior, "verdict": model.Router.Verdict,
	})
	send("agflow_ready", "1 where images can be answered.", number(state.Ready), nil)
	send("agflow_draining", "1 where the server is ending.", number(state.Draining), nil)
	send("agflow_calibrated_escalation", "Share of images that escalated in calibration.",
		point.Escalation, nil)
	send("agflow_calibrated_escalation_low", "Lower end of its 95 % interval.",
		point.EscalationInterval[0], nil)
	send("agflow_calibrated_escalation_high", "Upper end of its 95 % interval.",
		point.EscalationInterval[1], nil)
	send("agflow_calibrated_cost",
		"Expected cost per image, over the heavy expert's; compare with the rate of "+
			"agflow_cost_total over that of agflow_images_total.", ledger.Charged, nil)
	for name, value := range monitorNumbers(state.Monitor) {
		send("agflow_monitor_"+name, "Of the monitor's report: "+name+".", value, nil)
	}
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// maxMonitorNumbers bounds what one report makes of metrics.
const maxMonitorNumbers = 64

var notOfNames = regexp.MustCompile(`[^a-z0-9_]+`)

// monitorNumbers are the numbers that a monitor gives to metrics, by names that these may have.
func monitorNumbers(monitor any) map[string]float64 {
	watched, is := monitor.(interface{ Metrics() map[string]float64 })
	if !is {
		return nil
	}
	given, numbers := watched.Metrics(), map[string]float64{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if len(numbers) == maxMonitorNumbers {
			break
		}
		numbers[notOfNames.ReplaceAllString(strings.ToLower(name), "_")] = given[name]
	}
	return numbers
}
