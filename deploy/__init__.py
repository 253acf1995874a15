"""Export checkpoints, and predict label maps with exported models."""
