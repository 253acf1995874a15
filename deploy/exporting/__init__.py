"""From a checkpoint to an exported model: the graph, its precision, its parity, and what lies beside it."""
