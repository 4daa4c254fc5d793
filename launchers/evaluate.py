"""Measure an exported network: `pwfn evaluate`, from a checkout."""

from checkout import launch

if __name__ == "__main__":
    launch(__file__)
