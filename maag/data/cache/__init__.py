"""The prepared set: a data set on the training grid, written once and memory-mapped."""
