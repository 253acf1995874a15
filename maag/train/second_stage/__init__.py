"""Denser labels for a second stage of training, from what a first one is sure of."""
