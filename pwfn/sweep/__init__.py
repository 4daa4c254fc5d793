"""What runs trials: many at once on a Ray cluster, or one by hand. The only package that imports Ray."""
