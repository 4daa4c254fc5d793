"""k-means: a codebook for the weights as they are, without training."""
