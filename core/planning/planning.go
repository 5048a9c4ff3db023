// Package planning computes which units of a model are kept under a budget of MACs, parameters,
// latency or a pruning ratio.
//
// [Solve] ranks the units of each layer by their scores and puts the units of all layers into one
// fixed order, in allocation steps of round_to units; a plan keeps a prefix of this greedy
// schedule. So a bigger budget keeps everything that a smaller one keeps, equal input gives the
// equal plan, and equal scores are ordered by index. The cost of a prefix is computed exactly,
// whatever is pruned together: see [CostsKey] for MACs and parameters, and [LatencyTable] for time.
// [Diff] compares two plans, and [TopK] returns the best of many scores. The package changes no
// model and writes no file.
package planning
