"""The networks: the segmentor with its attention gates, and the discriminator. Tensors in, tensors out."""
