"""The Go core: the list of its calls, and the two backends that reach them."""
