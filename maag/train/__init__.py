"""The training loop, from a configuration to a run folder."""
