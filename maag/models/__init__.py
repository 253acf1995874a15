"""The segmentor with its gates, and the discriminator: tensors in, tensors out."""
