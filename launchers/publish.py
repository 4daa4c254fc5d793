"""Copy what a report needs of studies into a few small files: `pwfn publish`, from a checkout."""

from checkout import launch

if __name__ == "__main__":
    launch(__file__)
