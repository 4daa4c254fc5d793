"""Run one trial by hand: `pwfn train`, from a checkout."""

from checkout import launch

if __name__ == "__main__":
    launch(__file__)
