"""Straight-through training of one shared codebook, in stages with fewer and fewer values."""
