"""Slices as training draws them: who teaches what, in batches, changed at random, on the device."""
