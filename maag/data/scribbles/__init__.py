"""Scribbles: their sources, simulated annotators, and the agreement of several raters."""
