"""What ``agflow bench`` measures: agflow and its peers on the same data, in one interleaved run."""
