"""Make smaller files of an exported network: `pwfn shrink`, from a checkout."""

from checkout import launch

if __name__ == "__main__":
    launch(__file__)
