package web

import (
	"github.com/prometheus/client_golang/prometheus"

	"agflow/cli/serving"
	"agflow/core/routing/monitor"
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
	if report, watched := state.Monitor.(monitor.Report); watched {
		sendMonitor(report, send)
	}
}

// sendMonitor sends what the watch over the promise says.
func sendMonitor(
	r monitor.Report, send func(name, help string, value float64, labels prometheus.Labels),
) {
	send("agflow_monitor_promise_alarm", "1 where the promise no longer holds.",
		number(r.Alarm != ""), nil)
	for _, w := range r.Watches {
		if w.Off != "" {
			continue
		}
		watch := prometheus.Labels{"watch": w.Name}
		send("agflow_monitor_evidence", "Evidence of a watch against what it watches, 1 at the "+
			"start; over replicas take the mean.", w.Evidence, watch)
		send("agflow_monitor_evidence_needed", "The evidence that raises its alarm.", w.Needs,
			watch)
		send("agflow_monitor_alarm", "1 where its alarm was raised.", number(w.Alarm != nil), watch)
	}
	send("agflow_monitor_audit_share", "Share of the images that stay with the light expert that "+
		"are audited now.", r.Share, nil)
	send("agflow_monitor_labelled_images", "Audited images whose label is known.",
		float64(r.Labelled), nil)
	send("agflow_monitor_awaited_images", "Audited images whose label may come.",
		float64(r.Awaited), nil)
	sendMean := func(name, help string, mean *monitor.Mean) {
		if mean == nil {
			return
		}
		send(name, help, mean.Value, nil)
		send(name+"_low", "Lower end of its interval.", mean.Interval[0], nil)
		send(name+"_high", "Upper end of its interval.", mean.Interval[1], nil)
	}
	sendMean("agflow_monitor_loss", "Accuracy that the cascade loses against the heavy expert, "+
		"over the last labelled audits.", r.Loss)
	sendMean("agflow_monitor_disagreement", "Share of images on which cascade and heavy expert "+
		"differ, over the last audits.", r.Disagreement)
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
