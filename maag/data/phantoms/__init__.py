"""Synthetic data sets in their native formats, noisy enough that thresholding fails."""
