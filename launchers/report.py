"""Report a sweep, while it runs or after: `pwfn report`, from a checkout."""

from checkout import launch

if __name__ == "__main__":
    launch(__file__)
