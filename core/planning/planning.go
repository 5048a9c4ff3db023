// Package planning chooses which units of a model stay under a budget.
//
// All units of a request are put into one fixed order, in steps of round_to units, and a plan keeps a prefix of it. So a
// bigger budget keeps everything that a smaller one keeps, equal input gives the equal plan, and ties fall to the lower
// index. What a prefix costs is counted exactly, whatever is cut together: see [CostsKey] for MACs and parameters, and
// [LatencyTable] for time. The package changes no model and writes no file: it says which units stay, and what that comes to.
package planning
