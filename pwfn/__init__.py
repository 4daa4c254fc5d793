"""Finds how few distinct weight values a trained image classifier needs, and at what accuracy."""
