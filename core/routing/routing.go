// Package routing decides which images the light expert may answer alone: priors from its logits, a threshold with a
// statistical guarantee, the honest cost of a cascade, and the whole curve between the two experts.
//
// A prior is a float32 a sample, higher where the light expert is surer. An image escalates to the heavy expert when its
// prior is below the threshold; this one comparison, of the float32 prior widened to float64, is the same everywhere.
// The package runs no model and reads no file.
package routing

// EscalateAll is a threshold above every prior, of whatever range: the heavy expert answers everything. EscalateNone is
// below every prior.
const (
	EscalateAll  = float64(1 << 128)
	EscalateNone = -EscalateAll
)

func escalates(prior float32, threshold float64) bool { return float64(prior) < threshold }
