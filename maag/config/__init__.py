"""The settings of a run: their types, limits and descriptions."""
