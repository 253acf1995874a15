"""Segmentation learned from scribbles, at cluster scale, shipped as fast engines."""

__version__ = "0.1.0"
