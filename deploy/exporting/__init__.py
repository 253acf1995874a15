"""Export a checkpoint: the graph, its precision, its parity, and the files beside it."""
