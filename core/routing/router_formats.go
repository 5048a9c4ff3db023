package routing

import (
	"fmt"
	"math"

	"agflow/core/strictjson"
)

// ledgerOf3 is the ledger of formats 1 to 3, whose costs are all in MACs.
type ledgerOf3 struct {
	Samples    int64   `json:"samples"`
	Escalated  int64   `json:"escalated"`
	Escalation float64 `json:"escalation"`
	LightMACs  int64   `json:"light_macs"`
	HeavyMACs  int64   `json:"heavy_macs"`
	SharedMACs int64   `json:"shared_macs"`
	Charged    float64 `json:"charged"`
	Uncharged  float64 `json:"uncharged"`
	BreakEven  float64 `json:"break_even"`
	Verdict    string  `json:"verdict"`
}

func (l ledgerOf3) upgraded() Ledger {
	return Ledger{
		Samples: l.Samples, Escalated: l.Escalated, Escalation: l.Escalation,
		LightCost: float64(l.LightMACs), HeavyCost: float64(l.HeavyMACs),
		SharedCost: float64(l.SharedMACs), CostUnit: MACs,
		Charged: l.Charged, Uncharged: l.Uncharged, BreakEven: l.BreakEven, Verdict: l.Verdict,
	}
}

// routerOf2 is a router of format 2, from before the ensemble: the heavy expert answers.
type routerOf2 struct {
	Format      int     `json:"format"`
	Prior       string  `json:"prior"`
	Temperature float64 `json:"temperature"`
	Threshold
	Point  Point     `json:"point"`
	Ledger ledgerOf3 `json:"ledger"`
	Priors []Quality `json:"priors"`
}

func (r routerOf2) upgraded() Router {
	return Router{
		Format: RouterFormat, Prior: r.Prior, Temperature: r.Temperature, Answers: HeavyAnswers,
		Threshold: r.Threshold, Point: r.Point, Ledger: r.Ledger.upgraded(), Priors: r.Priors,
	}
}

// routerOf3 is a router of format 3, which names the ensemble "both".
type routerOf3 struct {
	routerOf2
	Answers     string  `json:"answers"`
	LightWeight float64 `json:"light_weight"`
}

// bothAnswers was the name of EnsembleAnswers until format 3.
const bothAnswers = "both"

func (r routerOf3) upgraded() Router {
	router := r.routerOf2.upgraded()
	router.Answers, router.LightWeight = r.Answers, r.LightWeight
	if r.Answers == bothAnswers {
		router.Answers = EnsembleAnswers
	}
	return router
}

// routerOf1 is a router of format 1, from before further priors and intervals.
type routerOf1 struct {
	Format          int       `json:"format"`
	Prior           string    `json:"prior"`
	Threshold       float64   `json:"threshold"`
	Verdict         string    `json:"verdict"`
	Samples         int64     `json:"samples"`
	NeededSamples   int64     `json:"needed_samples"`
	Escalation      float64   `json:"escalation"`
	AccuracyLight   float64   `json:"accuracy_light"`
	AccuracyHeavy   float64   `json:"accuracy_heavy"`
	AccuracyCascade float64   `json:"accuracy_cascade"`
	Bound           float64   `json:"bound"`
	Tolerance       float64   `json:"tolerance"`
	Confidence      float64   `json:"confidence"`
	Ledger          ledgerOf3 `json:"ledger"`
}

// upgraded computes the intervals, which follow from the counts; no prior's quality was kept.
func (r routerOf1) upgraded() (Router, error) {
	ledger := r.Ledger.upgraded()
	if _, err := NewLedger(ledger.cost(), ledger.Samples, ledger.Escalated); err != nil {
		return Router{}, err
	}
	at := cut{r.Threshold, ledger.Escalated,
		int64(math.Round(r.AccuracyCascade * float64(ledger.Samples)))}
	return Router{
		Format: RouterFormat, Prior: r.Prior, Temperature: 1, Answers: HeavyAnswers,
		Threshold: Threshold{
			Threshold: r.Threshold, Verdict: r.Verdict, Target: AccuracyTarget, Limit: r.Tolerance,
			Confidence: r.Confidence, Bound: r.Bound, Samples: r.Samples,
			NeededSamples: r.NeededSamples, Escalation: r.Escalation,
			AccuracyLight: r.AccuracyLight, AccuracyHeavy: r.AccuracyHeavy,
			AccuracyCascade: r.AccuracyCascade,
		},
		Point:  newPoint(at, ledger.Samples, r.AccuracyLight, r.AccuracyHeavy, ledger.cost()),
		Ledger: ledger, Priors: []Quality{},
	}, nil
}

// parseOld reads a router of a format below RouterFormat.
func parseOld(format int64, content []byte) (Router, error) {
	switch format {
	case 1:
		var r routerOf1
		if err := strictjson.Whole(content, &r); err != nil {
			return Router{}, err
		}
		return r.upgraded()
	case 2:
		var r routerOf2
		err := strictjson.Whole(content, &r)
		return r.upgraded(), err
	case 3:
		var r routerOf3
		err := strictjson.Whole(content, &r)
		return r.upgraded(), err
	}
	return Router{}, fmt.Errorf("its format is %d, expected 1 to %d", format, RouterFormat)
}
