"""What proposes trials and keeps their study. The only package that imports Optuna."""
