"""The door to the Go core: which calls there are, and the two ways to reach them."""
