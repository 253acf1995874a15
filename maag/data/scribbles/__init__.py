"""Scribbles: where they come from, how hands draw them, and how far several hands agree."""
