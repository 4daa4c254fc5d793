"""Straight-through training of one shared codebook, in stages of ever fewer values."""
