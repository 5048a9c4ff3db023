package web

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"time"

	"agflow/core/routing"
)

//go:embed status.html
var pageHTML []byte

// pagePolicy lets the page run its own style and script, and ask this server, and nothing else.
var pagePolicy = "default-src 'none'; connect-src 'self'; img-src data:; style-src " +
	hashOf("<style>", "</style>") + "; script-src " + hashOf("<script>", "</script>") +
	"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// hashOf is the source expression for the page's text between two tags.
func hashOf(begin, end string) string {
	_, rest, _ := bytes.Cut(pageHTML, []byte(begin))
	content, _, _ := bytes.Cut(rest, []byte(end))
	sum := sha256.Sum256(content)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// page sends the status page, which asks /v1/status.
func (s *server) page(x *exchange, _ *http.Request) error {
	header := x.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", pagePolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-cache")
	x.Write(pageHTML)
	return nil
}

// statusReport is what the status page shows.
type statusReport struct {
	Version string       `json:"version"`
	Model   statusModel  `json:"model"`
	Promise statusPledge `json:"calibrated"`
	Total   totals       `json:"total"` // since the start
	Live    *live        `json:"live"`  // of the latest answers; null before the first
	// the measured time of both experts over the heavy expert's for every image; null before the
	// heavy expert computed
	CostByClock *float64 `json:"cost_by_clock"`
	Ready       bool     `json:"ready"`
	Draining    bool     `json:"draining"`
	NotReady    string   `json:"not_ready"`
	Queued      int      `json:"queued"`
	Monitor     any      `json:"monitor"` // null for none
}

type statusModel struct {
	Name     string `json:"name"`
	Revision string `json:"revision"`
	Runtime  string `json:"runtime"`
	Input    [3]int `json:"input"` // channels, height, width
	Classes  int    `json:"classes"`
	MaxBatch int    `json:"max_batch"`
}

// statusPledge is the router as it was calibrated.
type statusPledge struct {
	Prior              string           `json:"prior"`
	Answers            string           `json:"answers"`
	Threshold          float64          `json:"threshold"`
	Verdict            string           `json:"verdict"`
	Target             string           `json:"target"`
	Limit              float64          `json:"limit"`
	Confidence         float64          `json:"confidence"`
	Samples            int64            `json:"samples"`
	Escalation         float64          `json:"escalation"`
	EscalationInterval routing.Interval `json:"escalation_interval"`
	Cost               float64          `json:"cost"`
	CostInterval       routing.Interval `json:"cost_interval"`
	LightCost          float64          `json:"light_cost"`
	HeavyCost          float64          `json:"heavy_cost"`
	SharedCost         float64          `json:"shared_cost"`
	CostUnit           string           `json:"cost_unit"`
}

func pledgeOf(r routing.Router) statusPledge {
	return statusPledge{
		Prior: r.Prior, Answers: r.Answers, Threshold: r.Threshold.Threshold, Verdict: r.Verdict,
		Target: r.Target, Limit: r.Limit, Confidence: r.Confidence, Samples: r.Samples,
		Escalation: r.Point.Escalation, EscalationInterval: r.Point.EscalationInterval,
		Cost: r.Ledger.Charged, CostInterval: r.Point.ChargedInterval,
		LightCost: r.Ledger.LightCost, HeavyCost: r.Ledger.HeavyCost,
		SharedCost: r.Ledger.SharedCost, CostUnit: r.Ledger.CostUnit,
	}
}

func (s *server) status(x *exchange, _ *http.Request) error {
	m, state := s.model(), s.cascade.State()
	total, latest := s.metrics.tally.read()
	report := statusReport{
		Version: s.Version, Promise: pledgeOf(m.Router), Total: total,
		Model: statusModel{
			m.Name, m.Revision, m.Runtime, [3]int{m.Channels, m.Height, m.Width}, m.Classes,
			m.MaxBatch,
		},
		Live:  liveOf(latest, time.Now()),
		Ready: state.Ready, Draining: state.Draining, NotReady: state.NotReady,
		Queued: state.Queued, Monitor: state.Monitor,
	}
	if cost, known := total.costByClock(); known {
		report.CostByClock = &cost
	}
	x.Header().Set("Cache-Control", "no-store")
	return writeJSON(x, http.StatusOK, report)
}

// monitor sends the monitor's report.
func (s *server) monitor(x *exchange, _ *http.Request) error {
	report := s.cascade.State().Monitor
	if report == nil {
		return refuse(http.StatusNotFound, "the promise of this cascade is not watched: the "+
			"server runs without a monitor")
	}
	return writeJSON(x, http.StatusOK, report)
}
