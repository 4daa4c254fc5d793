"""Search a space for its Pareto front: `pwfn search`, from a checkout."""

from checkout import launch

if __name__ == "__main__":
    launch(__file__)
