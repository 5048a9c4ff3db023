// Package routing computes which images the light expert answers alone and which escalate to the
// heavy expert: priors from the light expert's logits, a threshold with a statistical guarantee,
// the expected cost of a cascade, and the curve of accuracy and cost over all thresholds.
//
// A prior is one float32 a sample, higher where the light expert is more confident. An image
// escalates to the heavy expert when its prior is below the threshold; this one comparison, of the
// float32 prior widened to float64, is the same everywhere. The package runs no model and reads no
// file.
package routing

// EscalateAll is a threshold above every float32: the heavy expert answers everything. EscalateNone
// is a threshold below every float32.
const (
	EscalateAll  = float64(1 << 128)
	EscalateNone = -EscalateAll
)

func escalates(prior float32, threshold float64) bool { return float64(prior) < threshold }

// Escalates reports whether an image of a prior escalates.
func (t Threshold) Escalates(prior float32) bool { return escalates(prior, t.Threshold) }
