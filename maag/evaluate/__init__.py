"""Measuring models and predictions against masks, and the report of it."""
