"""Benchmarks of ``agflow bench``: agflow and its peers on the same data, in one interleaved run."""
