"""The data sets that maag reads, one module each: their layout on disk and what their labels mean."""
