"""Slices for training: supervision, batches and augmentation, on the device."""
