"""One trial, in whatever process it runs: its run, its rows, its starts. Imports neither Ray nor Optuna."""
