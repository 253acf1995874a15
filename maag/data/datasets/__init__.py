"""The data sets that maag reads, a module each: what lies where on disk, and what it means."""
