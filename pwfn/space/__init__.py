"""What is asked: a search space read from YAML and checked whole. Imports neither torch, Ray nor Optuna."""
