"""Show a study in optuna-dashboard: `pwfn dashboard`, from a checkout."""

from checkout import launch

if __name__ == "__main__":
    launch(__file__)
