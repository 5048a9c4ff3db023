// Package routing decides which images the light expert may answer alone: priors from its logits, a threshold with a
// statistical guarantee, the honest cost of a cascade, and the whole curve between the two experts.
//
// An image escalates to the heavy expert when its prior is below the threshold; this one comparison, of the float32
// prior widened to float64, is the same everywhere. The package runs no model and reads no file.
package routing

import "math"

// EscalateAll is a threshold above every prior: the heavy expert answers everything. 1 is not, since a very sure
// softmax rounds to 1.
var EscalateAll = float64(math.Nextafter32(1, 2))
