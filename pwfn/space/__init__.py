"""Search spaces: read from YAML and checked as a whole. Imports neither torch nor Ray nor Optuna."""
