package criteria

import (
	"hash/fnv"
	"math/rand/v2"

	"agflow/core/statistics"
)

// random is uniform in [0, 1): the baseline of the other criteria. Each layer has a generator of
// its own, seeded by its name and group, so its scores do not depend on the other layers or on
// their order.
var random = criterion{
	Description: Description{
		Name: "random",
		Doc: "uniform random scores of the given seed, the baseline; " +
			"comparable across layers",
		Comparable: true,
	},
	score: scoreRandom,
}

func scoreRandom(score []float64, l statistics.Layer, _ int, _ statistics.Table, seed uint64) {
	hash := fnv.New64a()
	hash.Write([]byte(l.Name + l.Group)) // a hash's Write never fails
	generator := rand.NewPCG(seed, hash.Sum64())
	for u := range score {
		score[u] = float64(generator.Uint64()>>11) / (1 << 53)
	}
}
