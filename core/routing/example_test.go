package routing_test

import (
	"fmt"

	"agflow/core/routing"
	"agflow/core/tensor"
)

// Three images through the light expert: the second has low confidence and escalates to the heavy
// one.
func Example() {
	rule := routing.Rule{Prior: routing.MaxProbability, Temperature: 1, Threshold: 0.9}
	// of the light expert: [images, classes]
	logits, _ := tensor.NewView([]float32{4, 0, 0.2, 0, 0, 6}, 3, 2)
	answers, priors, _ := routing.Priors(logits, rule.Temperature, routing.LightExpert)
	escalated, err := rule.Route(logits)
	fmt.Printf("%v %s %.3f %v %v\n", answers, priors[0].Name, priors[0].Values, escalated, err)
	// Output: [0 0 1] max_probability [0.982 0.550 0.998] [1] <nil>
}

// The light pass of an escalated image is charged, which turns this pair's gain into a loss.
func ExampleNewLedger() {
	cost := routing.Cost{Light: 850, Heavy: 1000, Unit: routing.MACs}
	ledger, err := routing.NewLedger(cost, 1000, 485)
	fmt.Printf("charged %.3f, uncharged %.3f, break-even at %.2f: %s, %v\n",
		ledger.Charged, ledger.Uncharged, ledger.BreakEven, ledger.Verdict, err)
	// Output: charged 1.335, uncharged 0.923, break-even at 0.15: loss, <nil>
}

// 100 samples on which both experts agree are not enough for this tolerance.
func ExampleCalibrate() {
	outcomes := routing.Outcomes{
		Prior: make([]float32, 100), LightCorrect: routing.NewBits(100),
		HeavyCorrect: routing.NewBits(100),
	}
	for i := range outcomes.Prior {
		outcomes.Prior[i] = 0.9
		outcomes.LightCorrect.Set(i, true)
		outcomes.HeavyCorrect.Set(i, true)
	}
	threshold, err := routing.Calibrate(outcomes, 0.01, 0.95)
	fmt.Println(threshold.Verdict, threshold.NeededSamples, err)
	// Output: INSUFFICIENT DATA 299 <nil>
}
