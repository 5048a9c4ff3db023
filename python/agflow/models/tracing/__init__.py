"""Channel groups read from a network's graph: which units go together, and which must stay."""
