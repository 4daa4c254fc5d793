"""Codebooks for given weights, without training."""
