"""Export a compressed network as a small file: `pwfn export`, from a checkout."""

from checkout import launch

if __name__ == "__main__":
    launch(__file__)
