"""Synthetic data sets in their native formats, noisy enough that thresholds fail and learning is needed."""
