"""One trial, in whatever process it is put: its run, its rows, its starts. Knows neither Ray nor Optuna."""
