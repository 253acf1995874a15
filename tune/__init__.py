"""Hyperparameter search over loss weights, gate settings and learning rates, with Ray Tune."""
