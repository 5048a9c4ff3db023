// Package statistics computes the sums that the criteria read, per prunable unit: gradient flow
// |y·g|, activations, gradients and attached weights. An [Accumulator] sums batches of activations
// y and gradients g = ∂L/∂y (arXiv 2603.12354 takes the absolute value of each element before any
// sum, so that signs cannot cancel); [Merge] joins the tables of several runs.
//
// Sums are exact float64 chains in row order: the same bits for any number of workers and any split
// of the rows over batches. The package keeps no tensor, ranks nothing and reads no file.
package statistics
