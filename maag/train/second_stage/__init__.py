"""A second stage of training: on denser labels from what a first one is sure of, or taught by its models."""
