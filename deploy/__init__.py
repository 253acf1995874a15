"""From checkpoints to exported models, from exported models to label maps."""
