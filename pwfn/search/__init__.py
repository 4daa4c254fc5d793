"""Who proposes trials, and what becomes of their results: the study. The only package that imports Optuna."""
