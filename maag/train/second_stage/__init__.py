"""A second stage of training: on denser labels that a first model is confident of, or on its soft labels."""
