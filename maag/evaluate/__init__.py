"""Evaluation of models and predictions against masks, and its report."""
