"""k-means: shared values for the weights of a trained network, without further training."""
